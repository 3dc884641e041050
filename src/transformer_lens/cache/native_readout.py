"""The Readout of a native transformer."""

from __future__ import annotations

from torch import nn

from transformer_lens.cache.errors import UndefinedDecompositionError
from transformer_lens.cache.readout import LayerReadout, MLPKind, NormReadout, Readout, readout_of
from transformer_lens.native.attention import Attention
from transformer_lens.native.audio_encoder import NativeAudioEncoder
from transformer_lens.native.encoder import NativeEncoder
from transformer_lens.native.mlp import MLP, MoE
from transformer_lens.native.norms import LayerNorm, LayerNormPre, RMSNorm, RMSNormPre
from transformer_lens.native.transformer import NativeTransformer


@readout_of.register
def native_readout(model: NativeTransformer) -> Readout:
    """The Readout of a native transformer: references to its weights as they are now, detached.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer({"n_layers": 2, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20})
        >>> native_readout(model).layers[0].W_O.shape
        torch.Size([2, 4, 8])
    """
    cfg = model.cfg
    adds_positions = cfg.positional_embedding_type == "standard"  # a shortformer's go to queries and keys only
    return Readout(
        d_model=cfg.d_model,
        layers=tuple(_layer(model, layer) for layer in range(cfg.n_layers)),
        embeddings=("embed", "pos_embed") if adds_positions else ("embed",),
        ln_final=_norm(model.ln_final, "ln_final"),
        W_U=model.W_U.detach(),
        b_U=model.b_U.detach(),
        logit_cap=cfg.output_logits_soft_cap if cfg.output_logits_soft_cap > 0 else None,
    )


@readout_of.register
def encoder_readout(model: NativeEncoder | NativeAudioEncoder) -> Readout:
    """Nothing: a stream that is normalised after each sum is not the sum of what was written into it.

    Raises:
        UndefinedDecompositionError: always.
    """
    raise UndefinedDecompositionError(
        "This model normalises its stream after each sum, so what layers write does not add up to it, and its cache "
        "cannot be split into parts. Activations can be read one by one: attn.hook_result holds what each head writes "
        "(name it, or set cfg.use_attn_result), hook_resid_mid and hook_resid_post the sums before their norms."
    )


def _layer(model: NativeTransformer, layer: int) -> LayerReadout:
    block = model.blocks[layer]
    parts = dict(block.named_children())
    norms = {
        name: _norm(parts[name], f"blocks.{layer}.{name}")
        for name in ("ln1", "ln2", "ln1_post", "ln2_post")
        if name in parts
    }
    # NOTE: clients put modules of their own in these places; then nothing is known of what they do inside.
    attention, mlp = parts["attn"], parts.get("mlp")
    own = attention if isinstance(attention, Attention) else None
    plain = mlp if isinstance(mlp, MLP) else None
    kind: MLPKind | None = None
    if mlp is not None:
        kind = "neurons" if plain else "experts" if isinstance(mlp, MoE) else "opaque"
    return LayerReadout(
        heads=model.cfg.n_heads,
        mlp=kind,
        parallel=model.cfg.parallel_attn_mlp,
        W_O=None if own is None else own.W_O.detach(),
        b_O=None if own is None else own.b_O.detach(),
        W_out=None if plain is None else plain.W_out.detach(),
        b_out=None if plain is None else plain.b_out.detach(),
        **norms,
    )


def _norm(module: nn.Module, name: str) -> NormReadout | None:
    match module:
        case LayerNorm():
            return NormReadout("LN", name, module.eps, module.w.detach(), module.b.detach())
        case LayerNormPre():
            return NormReadout("LN", name, module.eps)
        case RMSNorm():
            return NormReadout("RMS", name, module.eps, module.w.detach())
        case RMSNormPre():
            return NormReadout("RMS", name, module.eps)
    return None
