"""The Readout of a wrapped model: what is known of how its layers write into the stream and what reads it."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.cache.errors import UndefinedDecompositionError
from transformer_lens.cache.readout import LayerReadout, MLPKind, NormReadout, Readout, readout_of
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.models.bridge_weights import BridgeWeights
from transformer_lens.models.native_bridge import NativeCausalLM
from transformer_lens.wrapped.host import WrappedHost
from transformer_lens.wrapped.places import LayerPlaces, NormPlace
from transformer_lens.wrapped.views import View

_LAYER = "blocks.{layer}."


@readout_of.register
def bridge_readout(model: BridgeWeights) -> Readout:
    """The Readout of a bridge: its weights as they are now, detached, in the shapes of the native host.

    Raises:
        UndefinedDecompositionError: a layer writes in a way that is no sum of heads and an MLP, or a norm computes
            nothing that is known.

    Example:
        >>> from transformer_lens import TransformerBridge
        >>> bridge = TransformerBridge.boot_transformers("demo", device="cpu")
        >>> bridge_readout(bridge).layers[0].W_O.shape == bridge.blocks[0].attn.W_O.shape
        True
    """
    host = model.host
    if isinstance(host.model, NativeCausalLM):
        return readout_of(host.model.model)
    layers = tuple(_layer(host, block, layer) for layer, block in enumerate(model.blocks))
    return replace(end_of(host, model.cfg), layers=layers)


def end_of(host: WrappedHost, cfg: HookedTransformerConfig) -> Readout:
    """What is known of the ends of a model, in a Readout without layers.

    Raises:
        UndefinedDecompositionError: its final norm computes nothing that is known.
    """
    ends, cap = host.anatomy.ends, cfg.output_logits_soft_cap
    b_U = host.weights.find("unembed.", "b_U")
    return Readout(
        d_model=cfg.d_model,
        layers=(),
        embeddings=("embed",) if ends.pos_embed is None else ("embed", "pos_embed"),
        ln_final=None if ends.final_norm is None else _norm(host, ends.final_norm, "ln_final"),
        W_U=_weight(host, "unembed.W_U"),
        b_U=None if b_U is None else b_U.detach(),
        logit_cap=cap if cap > 0 else None,
    )


def _layer(host: WrappedHost, block: nn.Module, layer: int) -> LayerReadout:
    places, parts = host.anatomy.layer(layer), dict(block.named_children())
    if places.mixer is not None or places.cross_attn is not None or places.in_stream:
        raise UndefinedDecompositionError(
            f"Layer {layer} of this model ({host.anatomy.name}) is not attention and MLP that add to the stream, so a "
            "cache of it cannot be split into their parts. Its activations can be read one by one."
        )
    norms = {name: _norm(host, norm, f"blocks.{layer}.{name}", layer) for name, norm in places.norms.items()}
    if places.one_norm:
        norms["ln2"] = norms["ln1"]
    attention = places.attn is not None and _is_hfs(parts["attn"])
    kind = _mlp_kind(host, places, parts, layer)
    plain = kind == "neurons"
    return LayerReadout(
        heads=0 if places.attn is None else places.attn.heads,
        mlp=kind,
        parallel=host.anatomy.cfg.parallel_attn_mlp,
        W_O=_weight(host, f"{_LAYER}attn.W_O", layer) if attention else None,
        b_O=_weight(host, f"{_LAYER}attn.b_O", layer) if attention else None,
        W_out=_weight(host, f"{_LAYER}mlp.W_out", layer) if plain else None,
        b_out=_weight(host, f"{_LAYER}mlp.b_out", layer) if plain else None,
        **{name: norms.get(name) for name in ("ln1", "ln2", "ln1_post", "ln2_post")},
    )


def _mlp_kind(host: WrappedHost, places: LayerPlaces, parts: dict[str, nn.Module], layer: int) -> MLPKind | None:
    if places.mlp is None:
        return None
    if not _is_hfs(parts["mlp"]):
        return "opaque"
    if places.mlp.router is not None:
        return "experts"
    return "opaque" if host.anatomy.rule(f"{_LAYER}mlp.W_out", layer) is None else "neurons"


def _is_hfs(part: nn.Module) -> bool:
    """Whether nothing in a part was replaced by a client's module: of that nothing is known."""
    return not any(isinstance(view, View) and "replacement" in view._modules for view in part.modules())


def _weight(host: WrappedHost, ours: str, layer: int = 0) -> Float[Tensor, "..."] | None:
    return None if host.anatomy.rule(ours, layer) is None else host.weights.read(ours, layer).detach()


def _norm(host: WrappedHost, place: NormPlace, name: str, layer: int = 0) -> NormReadout:
    if place.eps is None:
        raise UndefinedDecompositionError(f"What the norm {name} of {host.anatomy.name} computes is not known.")
    w, b = (_weight(host, f"{place.ours}.{leaf}", layer) for leaf in "wb")
    return NormReadout("LN" if place.centers else "RMS", name, place.eps, w, b)
