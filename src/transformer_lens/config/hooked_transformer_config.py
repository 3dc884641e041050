"""HookedTransformerConfig: everything the native transformer can be."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from transformer_lens.config.base import TransformerLensConfig
from transformer_lens.config.checks import check
from transformer_lens.config.devices import default_device

SOFTCAP_DISABLED = -1.0


@dataclass
class HookedTransformerConfig(TransformerLensConfig):
    """Configuration of a HookedTransformer. Give it as keywords, or as a dict to `from_dict`.

    Every field acts; one that is unknown, contradicts another or would have no effect is refused. Only d_mlp and act_fn
    beside attn_only=True are let pass, as configurations written by 3.9 carry them.

    Attributes:
        act_fn: activation of the MLP: relu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, silu, solu,
            solu_ln, xielu, relu2, tanh.
        attn_scale: what scores are divided by; -1 means sqrt(d_head); with use_attn_scale=False nothing divides.
        use_local_attn, window_size, attn_types: sliding windows; attn_types says "global" or "local" per layer.
        attention_dir: "causal" or "bidirectional".
        parallel_attn_mlp: attention and MLP read the same stream.
        rotary_dim, rotary_base, rotary_adjacent_pairs, rotary_scaling_factor (linear), use_dynamic_ntk_rope,
        use_NTK_by_parts_rope with NTK_*, use_yarn_rope with yarn_*: rotary positions and their extensions.
        rotary_base_local: base of local layers (they are not rescaled).
        use_logn_attn: queries beyond train_seq_length grow with log(position).
        rotary_layers: the layers that rotate queries and keys; None: all.
        use_qk_norm: RMS norm of each head's queries and keys (with qk_layer_norm a layer norm); with
            qk_norm_across_heads of all heads' together.
        longrope_*: a divisor for each rotary frequency, and others beyond longrope_original_ctx tokens.
        gated_mlp_biases: gated MLPs compute act(x W_gate + b_gate) * (x W_in + b_in), not ... * (x W_in) + b_in.
        use_attention_sinks: one learned extra logit per head in each softmax.
        use_normalization_before_and_after: norms after attention and MLP too; use_normalization_after_only: only there.
        post_embedding_ln: layer norm right after the token embedding.
        attn_scores_soft_cap, output_logits_soft_cap: c * tanh(x / c), where c > 0.
        clip_qkv: clamp queries, keys and values to [-clip, clip].
        num_experts, experts_per_token, norm_topk_prob: mixture of experts. softmax_over_chosen_experts: the router's
            softmax is over the chosen ones alone. expert_biases: experts and router have biases. clamped_glu_limit:
            experts compute act(min(gate, limit)) * (clamp(in, -limit, limit) + 1) (gpt-oss). d_shared_expert: width
            of one more expert that every token goes to.
        d_vocab_out: size of the output vocabulary; -1 means d_vocab (and d_vocab=-1: as the model's tokenizer says).
        tokenizer_name: of the tokenizer to load where none is given; trust_remote_code is for that.
        tokenizer_prepends_bos: whether the tokenizer starts a text with BOS by itself; found by the model.
        init_mode: gpt2, xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal or muP; initializer_range is
            its scale (-1: 0.8 / sqrt(d_model) for gpt2, else 1).
        seed: of the initial weights (a generator of its own: the global one is left alone).
        n_devices: CUDA devices over which the layers are spread.

    Raises:
        ConfigurationError: fields that contradict each other, or that the native transformer cannot honour.

    Example:
        >>> HookedTransformerConfig(d_model=64, d_head=16, n_layers=1, n_ctx=32, d_vocab=50, act_fn="gelu").n_heads
        4
    """

    model_name: str = "custom"
    use_attn_scale: bool = True
    attn_scale: float = -1.0
    use_hook_mlp_in: bool = False
    use_attn_in: bool = False
    use_qk_norm: bool = False
    clip_qkv: float | None = None
    use_logn_attn: bool = False
    train_seq_length: int | None = None
    use_dynamic_ntk_rope: bool = False
    use_local_attn: bool = False
    ungroup_grouped_query_attention: bool = False
    original_architecture: str | None = None
    from_checkpoint: bool = False
    checkpoint_index: int | None = None
    checkpoint_label_type: str | None = None
    checkpoint_value: int | None = None
    tokenizer_name: str | None = None
    window_size: int | None = None
    attn_types: list[str] | None = None
    init_mode: str = "gpt2"
    n_devices: int = 1
    attention_dir: str = "causal"
    seed: int | None = None
    initializer_range: float = -1.0
    init_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    d_vocab_out: int = -1
    parallel_attn_mlp: bool = False
    rotary_dim: int | None = None
    n_params: int | None = None
    use_hook_tokens: bool = False
    tokenizer_prepends_bos: bool | None = None
    post_embedding_ln: bool = False
    rotary_base: float | int = 10000
    rotary_base_local: float | int | None = None
    rotary_scaling_factor: float = 1.0
    trust_remote_code: bool = False
    rotary_adjacent_pairs: bool = False
    load_in_4bit: bool = False
    quantization_method: str | None = None
    relative_attention_max_distance: int | None = None
    relative_attention_num_buckets: int | None = None
    decoder_start_token_id: int | None = None
    tie_word_embeddings: bool = False
    use_normalization_before_and_after: bool = False
    attn_scores_soft_cap: float = SOFTCAP_DISABLED
    output_logits_soft_cap: float = SOFTCAP_DISABLED
    use_NTK_by_parts_rope: bool = False
    NTK_by_parts_low_freq_factor: float = 1.0
    NTK_by_parts_high_freq_factor: float = 4.0
    NTK_by_parts_factor: float = 8.0
    NTK_original_ctx_len: int = 8192
    use_yarn_rope: bool = False
    yarn_factor: float = 1.0
    yarn_attention_factor: float = 1.0
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    yarn_original_max_position_embeddings: int = 4096
    yarn_truncate: bool = True
    yarn_global_attn_only: bool = False
    use_attention_sinks: bool = False
    norm_topk_prob: bool = False
    softmax_over_chosen_experts: bool = False
    expert_biases: bool = False
    clamped_glu_limit: float | None = None
    d_shared_expert: int | None = None
    use_normalization_after_only: bool = False
    qk_norm_across_heads: bool = False
    rotary_layers: list[int] | None = None
    gated_mlp_biases: bool = False
    qk_layer_norm: bool = False
    longrope_short_factors: list[float] | None = None
    longrope_long_factors: list[float] | None = None
    longrope_original_ctx: int = 4096
    longrope_attention_factor: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.dtype, str):
            self.dtype = getattr(torch, self.dtype.removeprefix("torch."), self.dtype)
        if self.n_heads == -1 and self.d_model % self.d_head == 0:
            self.n_heads = self.d_model // self.d_head
        given = {field.name for field in fields(self) if getattr(self, field.name) != field.default}
        check(self, given)
        self._derive()

    def _derive(self) -> None:
        if self.d_mlp is None and not self.attn_only:
            self.d_mlp = 4 * self.d_model
        if self.d_vocab_out == -1:
            self.d_vocab_out = self.d_vocab
        if self.positional_embedding_type == "rotary" and self.rotary_dim is None:
            self.rotary_dim = self.d_head
        if self.attn_scale == -1.0 and self.use_attn_scale:
            self.attn_scale = self.d_head**0.5
        if self.initializer_range < 0:
            # NOTE: 0.8 / sqrt(d_model) is 0.03 at GPT-2's width; the other modes scale by fan themselves.
            self.initializer_range = 0.8 / self.d_model**0.5 if self.init_mode == "gpt2" else 1.0
        if self.device is None:
            self.device = default_device()
        self.n_params = self._count_parameters()

    def _count_parameters(self) -> int:
        # The usual "non-embedding parameters": weight matrices of the blocks, no biases, norms or embeddings.
        attention = 4 * self.n_heads * self.d_model * self.d_head
        mlp = 0
        if not self.attn_only and self.d_mlp is not None:
            mlp = self.d_model * self.d_mlp * (3 if self.gated_mlp else 2)
            if self.num_experts:
                mlp = (mlp + self.d_model) * self.num_experts
        return self.n_layers * (attention + mlp)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]) -> HookedTransformerConfig:
        """The configuration with these fields; see `TransformerLensConfig.from_dict`."""
        return super().from_dict(config_dict)

    def learns_positions(self) -> bool:
        """Whether positions have embeddings, which are learned."""
        return self.positional_embedding_type in ("standard", "shortformer")

    def is_layer_norm_activation(self) -> bool:
        """Whether the activation function is followed by a norm inside the MLP (solu_ln)."""
        return self.act_fn.endswith("_ln")

    def set_seed_everywhere(self, seed: int) -> None:
        """Seed torch, NumPy and random globally. Never done unasked: `cfg.seed` seeds the initial weights only."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
