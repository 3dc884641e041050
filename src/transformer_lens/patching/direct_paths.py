"""Direct path patching: what one head writes, put into another head's query, key or value alone.

The path goes from the head's output through the residual stream straight to the receiver, past everything in between
(the direct effects of arXiv 2211.00593, with one head of source and one of destination).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from transformer_lens.errors import ConfigurationError
from transformer_lens.hooks import get_act_name
from transformer_lens.patching.interventions import Cell, Intervention
from transformer_lens.patching.metrics import Metric
from transformer_lens.patching.sweep import Sweep

Component = Literal["q", "k", "v"]


class _AlongThePath(Mapping[str, Tensor]):
    """For each receiver's hook, the corrupted run's stream with a source's clean output in the place of its own."""

    def __init__(self, corrupted: Mapping[str, Tensor], change: Float[Tensor, "batch pos d_model"], heads: int):
        self.corrupted, self.change, self.heads = corrupted, change, heads

    def __getitem__(self, hook: str) -> Tensor:
        layer = hook.split(".")[1]
        stream = self.corrupted[get_act_name("resid_pre", int(layer))] + self.change
        return stream[:, :, None].expand(-1, -1, self.heads, -1)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def get_act_patch_direct_path(
    model: Any,
    corrupted_tokens: Int[Tensor, "batch pos"],
    clean_cache: Mapping[str, Tensor],
    corrupted_cache: Mapping[str, Tensor],
    patching_metric: Metric,
    src_layer: int,
    src_head: int,
    component: Component = "q",
    verbose: bool | None = None,
) -> Float[Tensor, "n_layers n_heads"]:
    """The metric with a head's clean output sent to one other head alone, for each that could receive it.

    Args:
        model: a model of either host.
        corrupted_tokens: the run that is patched.
        clean_cache, corrupted_cache: resid_pre and z of both runs, by name.
        patching_metric: one number from logits [batch, pos, d_vocab].
        src_layer, src_head: whose output.
        component: what of the receiver it goes into: its query, key or value.
        verbose: show a progress bar; None: in a terminal, if it takes more than two seconds.

    Returns:
        [layer, head] of receivers (key heads for k and v). Heads of src_layer and below receive nothing: theirs is the
        metric of the unpatched run.

    Raises:
        ConfigurationError: a norm after attention makes a head's output no part of a sum (Gemma 2, OLMo 2, …).
        ValueError: the component is none of these, there is no such head, or the metric gives several numbers.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> tokens, corrupted = model.to_tokens("The Eiffel Tower is in"), model.to_tokens("The Colosseum is in")
        >>> (_, clean), (_, other) = model.run_with_cache(tokens), model.run_with_cache(corrupted)
        >>> metric = lambda logits: logits[0, -1].max()
        >>> get_act_patch_direct_path(model, corrupted, clean, other, metric, 0, 1).shape
        torch.Size([4, 4])
    """
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    if not (0 <= src_layer < n_layers and 0 <= src_head < n_heads):
        raise ValueError(
            f"There is no head {src_layer}.{src_head}: layers 0 to {n_layers - 1}, heads to {n_heads - 1}."
        )
    values = _of_sources(
        model, corrupted_tokens, (clean_cache, corrupted_cache), [(src_layer, src_head)], component=component,
        metric=patching_metric, verbose=verbose,
    )  # fmt: skip
    return values[0]


def get_act_patch_direct_path_all_sources(
    model: Any,
    corrupted_tokens: Int[Tensor, "batch pos"],
    clean_cache: Mapping[str, Tensor],
    corrupted_cache: Mapping[str, Tensor],
    patching_metric: Metric,
    component: Component = "q",
    verbose: bool | None = None,
) -> Float[Tensor, "n_layers n_heads n_layers n_heads"]:
    """`get_act_patch_direct_path` for every source: [source layer, source head, layer, head].

    Arguments and errors are the same.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> tokens, corrupted = model.to_tokens("The Eiffel Tower is in"), model.to_tokens("The Colosseum is in")
        >>> (_, clean), (_, other) = model.run_with_cache(tokens), model.run_with_cache(corrupted)
        >>> metric = lambda logits: logits[0, -1].max()
        >>> get_act_patch_direct_path_all_sources(model, corrupted, clean, other, metric, "v").shape
        torch.Size([4, 4, 4, 4])
    """
    caches, heads = (clean_cache, corrupted_cache), range(model.cfg.n_heads)
    layers = tqdm(range(model.cfg.n_layers), disable=None if verbose is None else not verbose, delay=2.0, leave=False)
    values = [
        _of_sources(
            model,
            corrupted_tokens,
            caches,
            [(layer, head) for head in heads],
            component=component,
            metric=patching_metric,
            verbose=False,
        )
        for layer in layers
    ]
    return torch.stack(values)


@torch.no_grad()
def _of_sources(
    model: Any,
    tokens: Tensor,
    caches: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    sources: list[tuple[int, int]],
    *,
    component: Component,
    metric: Metric,
    verbose: bool | None,
) -> Float[Tensor, "source n_layers n_heads"]:
    if component not in ("q", "k", "v"):
        raise ValueError(f'A component is "q", "k" or "v"; got {component!r}.')
    cfg, (_, corrupted) = model.cfg, caches
    n_heads = cfg.n_heads if component == "q" else cfg.n_key_value_heads or cfg.n_heads
    cells: list[Cell] = []
    for source in sources:
        value = _AlongThePath(corrupted, _change(model, caches, *source), n_heads)
        for layer in range(cfg.n_layers):
            hook = get_act_name(f"{component}_input", layer)
            cells += [[Intervention(hook, value, head=h)] if layer > source[0] else [] for h in range(n_heads)]
    study = Sweep(model, tokens, cells, metric)
    if study.plain_metric.numel() != 1:
        raise ValueError(f"The metric must give one number; it gave {tuple(study.plain_metric.shape)}. Take its mean.")
    return study.run(verbose).reshape(len(sources), cfg.n_layers, n_heads)


def _change(
    model: Any, caches: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], layer: int, head: int
) -> Float[Tensor, "batch pos d_model"]:
    """What the clean run's head writes beyond the corrupted run's."""
    if model.cfg.use_normalization_before_and_after or model.cfg.use_normalization_after_only:
        raise ConfigurationError(
            "This model normalises attention's output before it is added to the stream, so that a head's own share of "
            "it is not defined and there is no direct path from one head."
        )
    clean, corrupted = (cache[get_act_name("z", layer)][:, :, head] for cache in caches)
    change: Tensor = (clean - corrupted) @ model.blocks[layer].attn.W_O[head]
    return change
