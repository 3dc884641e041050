"""The native host of sound: blocks that see in both directions, over transformers' own convolutions."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.errors import ConfigurationError, TransformerLensError
from transformer_lens.hooks import HookedRootModule
from transformer_lens.hooks.flags import CachingFlags
from transformer_lens.hooks.names import bridge_aliases
from transformer_lens.native.bert import BertBlock
from transformer_lens.native.encoder import additive_mask
from transformer_lens.native.initialize import init_weights
from transformer_lens.native.state_dicts import keep_state_dicts_plain
from transformer_lens.weights.stacked import StackedWeights

# What such a model is; other values of these fields would have no effect.
FIXED = {
    "normalization_type": "LN", "positional_embedding_type": "standard", "attn_only": False, "final_rms": False,
    "parallel_attn_mlp": False, "use_normalization_before_and_after": False, "use_normalization_after_only": False,
    "post_embedding_ln": False, "use_hook_tokens": False, "output_logits_soft_cap": -1.0, "n_devices": 1,
    "attn_types": None, "relative_attention_max_distance": None, "relative_attention_num_buckets": None,
    "decoder_start_token_id": None, "tie_word_embeddings": False, "attention_dir": "bidirectional", "num_experts": None,
    "tokenizer_name": None,
}  # fmt: skip


class NativeAudioEncoder(StackedWeights, CachingFlags, HookedRootModule):
    """From frames of sound to the normalised stream after the last layer.

    Attributes:
        blocks: the layers, of BERT's kind.
        hubert_model: transformers' model of the parts before them; None until there is one.
    """

    cfg: HookedTransformerConfig
    blocks: nn.ModuleList
    hubert_model: Any

    def __init__(self, cfg: HookedTransformerConfig, hubert_model: Any = None):
        super().__init__()
        idle = [f"{name}={getattr(cfg, name)!r}" for name, value in FIXED.items() if getattr(cfg, name) != value]
        if idle:
            raise ConfigurationError(f"{', '.join(idle)} is not for an encoder of sound.")
        self.cfg = cfg
        self.blocks = nn.ModuleList(BertBlock(cfg, layer) for layer in range(cfg.n_layers))
        keep_state_dicts_plain(self)
        if cfg.init_weights:
            init_weights(self, cfg)
        self.hubert_model = hubert_model
        self.setup()

    def other_spellings(self, names: list[str]) -> dict[str, str]:
        """The bridge's names of these hook points."""
        return bridge_aliases(names)

    def _weight(self, part: str, name: str, layer: int = 0) -> Tensor:
        if part not in ("attn", "mlp"):
            raise TransformerLensError(f"This model has no {name}: it hears sound, and what it gives is a stream.")
        weight: Tensor = getattr(self.get_submodule(f"blocks.{layer}.{part}"), name)
        return weight

    def all_head_labels(self) -> list[str]:
        """L0H0, L0H1, … in layer order."""
        return self._head_labels()

    def encode(
        self, frames: Float[Tensor, "batch pos d_model"], mask: Int[Tensor, "batch pos"] | None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The normalised stream after the last layer.

        Args:
            frames: what the convolutions made of the sound.
            mask: 1 for sound, 0 for padding, which is silenced and not attended to; None: all is sound.
        """
        additive = None if mask is None else additive_mask(mask, frames.dtype)
        if additive is not None and mask is not None:
            frames = frames.masked_fill(~mask.bool()[..., None], 0.0)
        before = self.hubert_model.encoder
        stream: Tensor = before.layer_norm(frames + before.pos_conv_embed(frames))
        for block in self.blocks:
            stream = block(stream, additive)
        return stream
