"""Activation patching as courses know it: one function for each kind of activation, each a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from transformer_lens.hooks import get_act_name
from transformer_lens.patching.interventions import Intervention
from transformer_lens.patching.metrics import Metric
from transformer_lens.patching.sweep import sweep

# What an index means in an intervention: positions of queries, heads, and the last axis of a pattern.
_PLACES = {"pos": "pos", "dest_pos": "pos", "head_index": "head", "head": "head", "src_pos": "neuron"}
Setter = Callable[[Tensor, Sequence[int], Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class _Kind:
    """One kind of patch: which activation, and what its cells run over besides layers."""

    activation: str
    axes: tuple[str, ...] = ("pos",)

    def hook(self, layer: int) -> str:
        return get_act_name(self.activation, layer)

    def cells(self, shape: Sequence[int], cache: Mapping[str, Tensor], n_layers: int) -> Iterator[Intervention]:
        for layer, *index in product(range(n_layers), *map(range, shape)):
            places = {_PLACES[axis]: entry for axis, entry in zip(self.axes, index, strict=True)}
            yield Intervention(self.hook(layer), cache, **places)


KINDS = {
    "resid_pre": _Kind("resid_pre"),
    "resid_mid": _Kind("resid_mid"),
    "resid_post": _Kind("resid_post"),
    "attn_out": _Kind("attn_out"),
    "mlp_out": _Kind("mlp_out"),
    "attn_head_out_by_pos": _Kind("z", ("pos", "head")),
    "attn_head_q_by_pos": _Kind("q", ("pos", "head")),
    "attn_head_k_by_pos": _Kind("k", ("pos", "head")),
    "attn_head_v_by_pos": _Kind("v", ("pos", "head")),
    "attn_head_pattern_by_pos": _Kind("pattern", ("head_index", "dest_pos")),
    "attn_head_pattern_dest_src_pos": _Kind("pattern", ("head_index", "dest_pos", "src_pos")),
    "attn_head_out_all_pos": _Kind("z", ("head",)),
    "attn_head_q_all_pos": _Kind("q", ("head",)),
    "attn_head_k_all_pos": _Kind("k", ("head",)),
    "attn_head_v_all_pos": _Kind("v", ("head",)),
    "attn_head_pattern_all_pos": _Kind("pattern", ("head_index",)),
}


def activation_patch(
    model: Any,
    corrupted_tokens: Int[Tensor, "batch pos"],
    clean_cache: Mapping[str, Tensor],
    metric: Metric,
    kind: str,
    verbose: bool = False,
) -> Float[Tensor, "layer *index"]:
    """The metric of the corrupted run with each clean activation put in, one at a time.

    Args:
        model: a HookedTransformer.
        corrupted_tokens: the run that is patched.
        clean_cache: the run the patches come from, of as many tokens.
        metric: one number from logits [batch, pos, d_vocab].
        kind: which activation, and what the cells run over; an entry of `KINDS`.
        verbose: show a progress bar.

    Returns:
        [layer, pos] for streams and outputs, [layer, pos, head] or [layer, head] for heads (key heads for k and v),
        [layer, head, dest_pos, src_pos] for single attention weights.

    Raises:
        ValueError: the kind is unknown, the two runs differ in length, or the metric gives more than one number.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> _, clean = model.run_with_cache("The Eiffel Tower is in")
        >>> corrupted, paris = model.to_tokens("The Colosseum is in"), model.to_single_token(" Paris")
        >>> metric = lambda logits: logits[0, -1, paris]
        >>> activation_patch(model, corrupted, clean, metric, "attn_head_out_all_pos").shape
        torch.Size([4, 4])
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of patch: {', '.join(KINDS)}.")
    found, n_layers = KINDS[kind], model.cfg.n_layers
    clean, length = clean_cache[found.hook(0)], corrupted_tokens.shape[1]
    n_clean = clean.shape[2 if found.activation == "pattern" else 1]
    if n_clean != length:
        raise ValueError(f"Patching needs two runs of equal length; the clean one has {n_clean} tokens, this {length}.")
    sizes = _sizes(clean, length, found)
    cells = list(found.cells(sizes, clean_cache, n_layers))
    results = sweep(model, corrupted_tokens, cells, metric, verbose=verbose)
    if results.ndim > 1 and results[0].numel() > 1:
        raise ValueError(f"The metric must give one number; it gave {tuple(results.shape[1:])}. Take its mean.")
    return results.reshape(n_layers, *sizes)


def _sizes(activation: Tensor, length: int, kind: _Kind) -> list[int]:
    heads = activation.shape[1] if kind.activation == "pattern" else activation.shape[-2]
    return [heads if "head" in axis else length for axis in kind.axes]


def _every(*kinds: str) -> Callable[..., Tensor]:
    def patch(model: Any, corrupted_tokens: Tensor, clean_cache: Any, metric: Metric, verbose: bool = False) -> Tensor:
        results = [activation_patch(model, corrupted_tokens, clean_cache, metric, kind, verbose) for kind in kinds]
        # Patterns come as [layer, head, dest_pos]; beside the others they are [layer, dest_pos, head].
        turned = [r.transpose(1, 2) if "pattern_by_pos" in k else r for k, r in zip(kinds, results, strict=True)]
        return torch.stack(turned)

    patch.__doc__ = f"The results of {', '.join(kinds)}, stacked; arguments as for `activation_patch`."
    return patch


def _one(kind: str) -> Callable[..., Tensor]:
    def patch(model: Any, corrupted_tokens: Tensor, clean_cache: Any, metric: Metric, verbose: bool = False) -> Tensor:
        return activation_patch(model, corrupted_tokens, clean_cache, metric, kind, verbose)

    patch.__doc__ = f"`activation_patch` of the kind {kind!r}: over layer, {', '.join(KINDS[kind].axes)}."
    return patch


get_act_patch_resid_pre = _one("resid_pre")
get_act_patch_resid_mid = _one("resid_mid")
get_act_patch_resid_post = _one("resid_post")
get_act_patch_attn_out = _one("attn_out")
get_act_patch_mlp_out = _one("mlp_out")
get_act_patch_attn_head_out_by_pos = _one("attn_head_out_by_pos")
get_act_patch_attn_head_q_by_pos = _one("attn_head_q_by_pos")
get_act_patch_attn_head_k_by_pos = _one("attn_head_k_by_pos")
get_act_patch_attn_head_v_by_pos = _one("attn_head_v_by_pos")
get_act_patch_attn_head_pattern_by_pos = _one("attn_head_pattern_by_pos")
get_act_patch_attn_head_pattern_dest_src_pos = _one("attn_head_pattern_dest_src_pos")
get_act_patch_attn_head_out_all_pos = _one("attn_head_out_all_pos")
get_act_patch_attn_head_q_all_pos = _one("attn_head_q_all_pos")
get_act_patch_attn_head_k_all_pos = _one("attn_head_k_all_pos")
get_act_patch_attn_head_v_all_pos = _one("attn_head_v_all_pos")
get_act_patch_attn_head_pattern_all_pos = _one("attn_head_pattern_all_pos")
get_act_patch_block_every = _every("resid_pre", "attn_out", "mlp_out")
get_act_patch_attn_head_all_pos_every = _every(*(f"attn_head_{x}_all_pos" for x in ("out", "q", "k", "v", "pattern")))
get_act_patch_attn_head_by_pos_every = _every(*(f"attn_head_{x}_by_pos" for x in ("out", "q", "k", "v", "pattern")))


@torch.no_grad()
def generic_activation_patch(
    model: Any,
    corrupted_tokens: Int[Tensor, "batch pos"],
    clean_cache: Mapping[str, Tensor],
    patching_metric: Metric,
    patch_setter: Setter,
    activation_name: str,
    index_axis_names: Sequence[str] | None = None,
    index_df: Any = None,
    verbose: bool = True,
) -> Float[Tensor, "*index"]:
    """The metric of one run for each patch that a function of your own makes.

    For the usual patches `activation_patch` gives the same numbers in a few passes.

    Args:
        model: any model with hooks.
        corrupted_tokens: the run that is patched.
        clean_cache: the run the patches come from.
        patching_metric: one number from logits.
        patch_setter: called as `(corrupted activation, index, clean activation)`; returns the patched one. The first
            entry of the index is the layer.
        activation_name: short name of the activation.
        index_axis_names: what the index runs over ("layer", "pos", "head_index", "head", "src_pos", "dest_pos"); the
            result has these axes.
        index_df: a data frame with one patch in each row, instead; the result has one entry for each.
        verbose: show a progress bar.

    Raises:
        ValueError: neither or both of index_axis_names and index_df are given, or an axis is unknown.
    """
    if (index_axis_names is None) == (index_df is None):
        raise ValueError("Give either index_axis_names or index_df.")
    if index_df is not None:
        indices, shape = [tuple(map(int, row)) for row in index_df.to_numpy()], [len(index_df)]
    else:
        shape = [_axis_size(model, corrupted_tokens, axis) for axis in index_axis_names or ()]
        indices = list(product(*map(range, shape)))
    results = []
    for index in tqdm(indices, disable=not verbose, leave=False):
        name = get_act_name(activation_name, index[0])

        def edit(activation: Tensor, hook: Any, index: tuple[int, ...] = index) -> Tensor:
            return patch_setter(activation, index, clean_cache[hook.name])  # type: ignore[arg-type]

        results.append(float(patching_metric(model.run_with_hooks(corrupted_tokens, fwd_hooks=[(name, edit)]))))
    return torch.tensor(results, device=corrupted_tokens.device).reshape(shape)


def _axis_size(model: Any, tokens: Tensor, axis: str) -> int:
    sizes = {"layer": model.cfg.n_layers, "head_index": model.cfg.n_heads, "head": model.cfg.n_heads}
    sizes |= dict.fromkeys(("pos", "src_pos", "dest_pos"), tokens.shape[1])
    if axis not in sizes:
        raise ValueError(f"{axis!r} is no axis of patches: {', '.join(sizes)}.")
    return int(sizes[axis])


def layer_pos_patch_setter(corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor) -> Tensor:
    """The activation [batch, pos, ...] with the clean one at index = (layer, pos)."""
    _, pos = index
    corrupted_activation[:, pos] = clean_activation[:, pos]
    return corrupted_activation


def layer_pos_head_vector_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The activation [batch, pos, head, d_head] with the clean one at index = (layer, pos, head)."""
    _, pos, head = index
    corrupted_activation[:, pos, head] = clean_activation[:, pos, head]
    return corrupted_activation


def layer_head_vector_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The activation [batch, pos, head, d_head] with the clean one at index = (layer, head)."""
    _, head = index
    corrupted_activation[:, :, head] = clean_activation[:, :, head]
    return corrupted_activation


def layer_head_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The pattern [batch, head, query, key] with the clean one at index = (layer, head)."""
    _, head = index
    corrupted_activation[:, head] = clean_activation[:, head]
    return corrupted_activation


def layer_head_pos_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The pattern [batch, head, query, key] with the clean one at index = (layer, head, query)."""
    _, head, query = index
    corrupted_activation[:, head, query] = clean_activation[:, head, query]
    return corrupted_activation


def layer_head_dest_src_pos_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The pattern [batch, head, query, key] with the clean one at index = (layer, head, query, key)."""
    _, head, query, key = index
    corrupted_activation[:, head, query, key] = clean_activation[:, head, query, key]
    return corrupted_activation
