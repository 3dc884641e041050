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
from transformer_lens.patching.edges import EdgeRuns, written
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
        ValueError: no circuit, or runs of different shape.

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
    if not several:
        raise ValueError("There is no circuit to evaluate; give one or several.")
    runs = runs_of(model, several, tokens, source_tokens)
    values = runs.metric(torch.stack([outside(circuit) for circuit in several]), metric, max_rows=max_rows)
    return Evaluation(values, metric(model(tokens)), metric(model(source_tokens)))


def runs_of(model: Any, circuits: Sequence[Circuit], tokens: Tensor, source_tokens: Tensor) -> EdgeRuns:
    """The clean run, to be made again with edges of circuits patched.

    Raises:
        ConfigurationError: a circuit is of another model's nodes.
    """
    nodes = Nodes.of(model)
    for circuit in circuits:
        if circuit.nodes != nodes:
            raise ConfigurationError(f"The circuit is of a model with {circuit.nodes}; this one has {nodes}.")
    return EdgeRuns(model, tokens, written(model, source_tokens, nodes), nodes)


def outside(circuit: Circuit) -> Float[Tensor, "sender receiver"]:
    """One for each edge that is not kept, as weights for `EdgeRuns`."""
    return (circuit.nodes.edges & ~circuit.kept).float()
