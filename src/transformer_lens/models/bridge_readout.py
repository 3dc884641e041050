"""The Readout of a wrapped model: what its spec says of how layers write into the stream and what reads it."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.cache.readout import LayerReadout, MLPKind, NormReadout, Readout, readout_of
from transformer_lens.models.bridge_weights import BridgeWeights
from transformer_lens.wrapped.host import WrappedHost
from transformer_lens.wrapped.views import View

_LAYER = "blocks.{layer}."


@readout_of.register
def bridge_readout(model: BridgeWeights) -> Readout:
    """The Readout of a bridge: its weights as they are now, detached, in the shapes of the native host.

    Example:
        >>> from transformer_lens import TransformerBridge
        >>> bridge = TransformerBridge.boot_transformers("demo", device="cpu")
        >>> bridge_readout(bridge).layers[0].W_O.shape == bridge.blocks[0].attn.W_O.shape
        True
    """
    host, cfg = model.host, model.cfg
    cap = cfg.output_logits_soft_cap
    return Readout(
        d_model=cfg.d_model,
        layers=tuple(_layer(host, block, layer) for layer, block in enumerate(model.blocks)),
        embeddings=("embed", "pos_embed") if host.anatomy.ends.pos_embed is not None else ("embed",),
        ln_final=_norm(host, "ln_final", kind="RMS" if cfg.final_rms else None),
        W_U=model.W_U.detach(),
        b_U=model.b_U.detach(),
        logit_cap=cap if cap > 0 else None,
    )


def _layer(host: WrappedHost, block: nn.Module, layer: int) -> LayerReadout:
    anatomy, cfg = host.anatomy, host.anatomy.cfg
    parts = dict(block.named_children())
    attention, mlp = _is_hfs(parts.get("attn")), _is_hfs(parts.get("mlp"))
    writes = host.weights.has(f"{_LAYER}mlp.W_out")
    kind: MLPKind | None = None
    if "mlp" in parts:
        kind = "opaque" if not mlp else "experts" if anatomy.routed else "neurons" if writes else "opaque"
    norms = {name: _norm(host, f"{_LAYER}{name}", layer) for name in ("ln1", "ln2", "ln1_post", "ln2_post")}
    if f"{_LAYER}ln2.w" in anatomy.shared or "ln2" not in parts:
        norms["ln2"] = norms["ln1"] if cfg.parallel_attn_mlp else norms["ln2"]
    return LayerReadout(
        heads=cfg.n_heads if "attn" in parts else 0,
        mlp=kind,
        parallel=cfg.parallel_attn_mlp,
        W_O=_weight(host, "attn.W_O", layer) if attention else None,
        b_O=_weight(host, "attn.b_O", layer) if attention else None,
        W_out=_weight(host, "mlp.W_out", layer) if kind == "neurons" else None,
        b_out=_weight(host, "mlp.b_out", layer) if kind == "neurons" else None,
        **norms,
    )


def _is_hfs(part: nn.Module | None) -> bool:
    """Whether nothing in a part was replaced by a client's module: of that nothing is known."""
    views = [] if part is None else [module for module in part.modules() if isinstance(module, View)]
    return not any("replacement" in view._modules for view in views)


def _weight(host: WrappedHost, name: str, layer: int) -> Float[Tensor, "..."] | None:
    ours = _LAYER + name
    return host.weights.read(ours, layer).detach() if host.weights.has(ours) else None


def _norm(host: WrappedHost, ours: str, layer: int = 0, kind: Literal["LN", "RMS"] | None = None) -> NormReadout | None:
    anatomy, read = host.anatomy, host.weights
    if anatomy.path(ours) is None:
        return None
    if kind is None:
        kind = "LN" if str(anatomy.cfg.normalization_type).startswith("LN") else "RMS"
    w, b = (read.read(f"{ours}.{leaf}", layer).detach() if read.has(f"{ours}.{leaf}") else None for leaf in "wb")
    return NormReadout(kind, ours.format(layer=layer), anatomy.cfg.eps, w, b)
