"""How much of a model's behaviour a circuit holds: run it with everything outside patched, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.circuits.circuit import Circuit
from transformer_lens.errors import ConfigurationError
from transformer_lens.patching.edges import Written, run_with_edges, written
from transformer_lens.patching.metrics import Metric
from transformer_lens.patching.nodes import Nodes


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metric of circuits, between those of the clean and of the corrupted run.

    Attributes:
        values: [circuit, *batch].
        clean, corrupted: of the whole model on both runs, [*batch].
    """

    values: Float[Tensor, "circuit *batch"]
    clean: Float[Tensor, "*batch"]
    corrupted: Float[Tensor, "*batch"]

    @property
    def faithfulness(self) -> Float[Tensor, "circuit"]:
        """Of each circuit: 0 as the corrupted run, 1 as the clean one; means over the batch, then their ratio."""
        means = self.values.flatten(1).mean(1) if self.values.ndim > 1 else self.values
        return (means - self.corrupted.mean()) / (self.clean.mean() - self.corrupted.mean())


@torch.no_grad()
def evaluate(
    model: Any,
    circuits: Circuit | Sequence[Circuit],
    tokens: Int[Tensor, "batch pos"],
    source_tokens: Int[Tensor, "batch pos"],
    metric: Metric,
    *,
    max_rows: int = 64,
) -> Evaluation:
    """The metric of one or several circuits: in the clean run, every edge outside carries the corrupted run's values.

    The whole graph is the clean run, and a graph without edges the corrupted one. Each circuit takes one pass; several
    are rows of one batch.

    Args:
        model: of either host.
        circuits: of this model's nodes.
        tokens: the clean run.
        source_tokens: the corrupted run, of as many tokens.
        metric: a function of logits that gives a number, or one for each row.
        max_rows: how many prompts a batch may have, copies counted.

    Raises:
        ConfigurationError: a circuit of another model's nodes.

    Example:
        >>> from transformer_lens import HookedTransformer, demo
        >>> from transformer_lens.patching import LogitDifference, edge_attribution
        >>> model, prompts = HookedTransformer.from_pretrained("demo"), demo.ioi(8)
        >>> runs = prompts.tokens, prompts.corrupted_tokens
        >>> metric = LogitDifference(prompts.answer_tokens, prompts.wrong_tokens)
        >>> graph = Circuit.of(model, edge_attribution(model, *runs, metric))
        >>> found = evaluate(model, [graph, graph.greedy(60), graph.top(0)], *runs, metric).faithfulness
        >>> bool(found[0] > 0.999), bool(found[1] > 0.7), bool(found[2].abs() < 0.001)
        (True, True, True)
    """
    several = [circuits] if isinstance(circuits, Circuit) else list(circuits)
    nodes = check(model, several)
    source = written(model, source_tokens, nodes)
    weights = torch.stack([outside(circuit) for circuit in several])
    values = run_metric(model, tokens, source, weights, metric, nodes=nodes, max_rows=max_rows)
    return Evaluation(values, metric(model(tokens)), metric(model(source_tokens)))


def check(model: Any, circuits: Sequence[Circuit]) -> Nodes:
    """The model's nodes, which all circuits must be of.

    Raises:
        ConfigurationError: one is not.
    """
    nodes = Nodes.of(model)
    for circuit in circuits:
        if circuit.nodes != nodes:
            raise ConfigurationError(f"The circuit is of a model with {circuit.nodes}; this one has {nodes}.")
    return nodes


def outside(circuit: Circuit) -> Float[Tensor, "sender receiver"]:
    """One for each edge that is not kept, as weights for `run_with_edges`."""
    return (circuit.nodes.edges & ~circuit.kept).float()


def run_metric(
    model: Any,
    tokens: Tensor,
    source: Written,
    weights: Float[Tensor, "row sender receiver"],
    metric: Metric,
    *,
    nodes: Nodes,
    max_rows: int,
) -> Float[Tensor, "row *batch"]:
    """The metric of each row of `weights`; see `run_with_edges`."""
    runs = run_with_edges(model, tokens, source, weights, nodes=nodes, max_rows=max_rows)
    return torch.stack([metric(logits) for logits in runs])
