"""How much of the clean run a circuit of edges at positions recovers, with every other edge ablated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transformer_lens.circuits.position_attribution import check_pairs
from transformer_lens.circuits.position_nodes import Node, edges
from transformer_lens.patching.edges import EdgeRuns, Written, written
from transformer_lens.patching.metrics import Metric
from transformer_lens.patching.nodes import Nodes

AblationMode = Literal["corrupt", "mean"]
EdgeClass = Literal["into_qk", "into_v", "into_mlp", "into_logits"]
_CLASSES: dict[EdgeClass, tuple[str, ...]] = {
    "into_qk": ("q", "k"),
    "into_v": ("v",),
    "into_mlp": ("mlp",),
    "into_logits": ("logits",),
}


@dataclass(frozen=True)
class FaithfulnessConfig:
    """What edges outside the circuit carry.

    Attributes:
        ablation: "corrupt": what the sender writes in the corrupted run; "mean": its mean over other prompts.

    Example:
        >>> FaithfulnessConfig("zero")
        Traceback (most recent call last):
        ValueError: ablation is one of corrupt, mean; got 'zero'.
    """

    ablation: AblationMode = "corrupt"

    def __post_init__(self) -> None:
        if self.ablation not in get_args(AblationMode):
            raise ValueError(f"ablation is one of {', '.join(get_args(AblationMode))}; got {self.ablation!r}.")


@dataclass(eq=False)
class FaithfulnessResult:
    """How much of the way from the corrupted run's metric to the clean one's a circuit recovers.

    Attributes:
        recovered: 0 as the corrupted run, 1 as the clean one; it may lie outside.
        full_metric, corrupt_metric: of the clean and of the corrupted run.
        circuit_size: edges kept.
        total_edges: edges of the graph.
        edge_class_recovered: the same with the circuit's edges of this class ablated too.
        edge_class_counts: edges of the graph of each class: into queries and keys, values, MLPs, logits.
    """

    recovered: float
    full_metric: float
    corrupt_metric: float
    circuit_size: int
    total_edges: int
    edge_class_recovered: dict[EdgeClass, float] = field(default_factory=dict)
    edge_class_counts: dict[EdgeClass, int] = field(default_factory=dict)


@torch.no_grad()
def faithfulness(
    model: Any,
    clean: Int[Tensor, "pair pos"],
    corrupt: Int[Tensor, "pair pos"],
    metric_fn: Metric,
    circuit: Sequence[tuple[Node, Node]] | Sequence[tuple[Node, Node, float]],
    config: FaithfulnessConfig = FaithfulnessConfig(),
    *,
    mean_tokens: Int[Tensor, "prompt pos"] | None = None,
) -> FaithfulnessResult:
    """How much of one clean run's metric is left with every edge outside the circuit ablated, exactly.

    For circuits that hold edges at all positions, and many prompts at once, see `evaluate`.

    Args:
        model: of either host.
        clean, corrupt: token ids of one pair.
        metric_fn: a function of its logits that gives a number.
        circuit: edges to keep, with or without scores (`AttributionResult.top_edges`).
        config: what other edges carry.
        mean_tokens: prompts of the same length, over which a mean ablation takes the mean of what is written at each
            position; neither of the pair is among them.

    Raises:
        UndefinedPathError: the model has no such edges.
        ValueError: more than one pair, an edge that does not exist, runs with the same metric, or `mean_tokens` that do
            not fit the ablation.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> from transformer_lens.circuits.position_attribution import EdgeAttributionConfig, attribution_patch
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> runs = model.to_tokens(["The Eiffel Tower is in", "The Colosseum is in"]).split(1)
        >>> paris = model.to_single_token(" Paris")
        >>> metric = lambda logits: logits[0, -1, paris]
        >>> scores = attribution_patch(model, *runs, metric, EdgeAttributionConfig("edge", ig_steps=5))
        >>> found = faithfulness(model, *runs, metric, scores.top_edges(100))
        >>> found.circuit_size, found.recovered > 0.5
        (100, True)
    """
    check_pairs(model, clean, corrupt)
    if len(clean) != 1:
        raise ValueError(f"The metric is of one pair; got {len(clean)}. Take them one by one, or use evaluate.")
    nodes = Nodes.of(model)
    source = _source(model, nodes, (clean, corrupt), config, mean_tokens)
    kept, everything = _kept(nodes, clean.shape[1], circuit), nodes.edges.expand(clean.shape[1], -1, -1)
    classes = {
        name: torch.tensor([receiver.kind in kinds for receiver in nodes.receivers])
        for name, kinds in _CLASSES.items()
        if nodes.has_mlps or name != "into_mlp"
    }
    graphs = torch.stack([kept, *(kept & ~into for into in classes.values())])
    full, empty = (_number(metric_fn, model(run)) for run in (clean, corrupt))
    if full == empty:
        raise ValueError("Both runs have the same metric, so no share of the way between them can be recovered.")
    # One graph at a time: the metric is of one pair's logits.
    runs = EdgeRuns(model, clean, source, nodes).logits((everything & ~graphs).float(), max_rows=len(clean))
    recovered = [(_number(metric_fn, logits) - empty) / (full - empty) for logits in runs]
    return FaithfulnessResult(
        recovered[0],
        full,
        empty,
        circuit_size=int(kept.sum()),
        total_edges=int(everything.sum()),
        edge_class_recovered=dict(zip(classes, recovered[1:], strict=True)),
        edge_class_counts={name: int((everything & into).sum()) for name, into in classes.items()},
    )


def _number(metric: Callable[[Tensor], Tensor], logits: Float[Tensor, "batch pos d_vocab"]) -> float:
    return float(torch.as_tensor(metric(logits)).mean())


def _kept(nodes: Nodes, length: int, circuit: Sequence[Any]) -> Bool[Tensor, "pos sender receiver"]:
    places = {edge: place for place, edge in edges(nodes, length)}
    unknown = [tuple(edge[:2]) for edge in circuit if tuple(edge[:2]) not in places]
    if unknown:
        raise ValueError(f"{len(unknown)} edges of the circuit are not in this model's graph, {unknown[0]} for one.")
    kept = torch.zeros(length, *nodes.edges.shape, dtype=torch.bool)
    for edge in circuit:
        kept[places[tuple(edge[:2])]] = True
    return kept


def _source(
    model: Any,
    nodes: Nodes,
    pair: tuple[Int[Tensor, "1 pos"], Int[Tensor, "1 pos"]],
    config: FaithfulnessConfig,
    others: Int[Tensor, "prompt pos"] | None,
) -> Written:
    """What senders write on ablated edges."""
    clean, corrupt = pair
    if config.ablation == "corrupt":
        if others is not None:
            raise ValueError('mean_tokens has no effect on ablation="corrupt"; leave it out.')
        return written(model, corrupt, nodes)
    if others is None:
        raise ValueError('ablation="mean" takes the mean over other prompts: give mean_tokens.')
    if others.ndim != 2 or not len(others) or others.shape[1:] != clean.shape[1:]:
        expected = f"[prompt, {clean.shape[1]}]"
        raise ValueError(f"mean_tokens are prompts {expected}, one at least; got {tuple(others.shape)}.")
    if any(bool((others == run.to(others.device)).all(1).any()) for run in pair):
        raise ValueError("mean_tokens hold a prompt of the pair itself; the mean is of others.")
    return written(model, others.to(clean.device), nodes).mean(0, keepdim=True)
