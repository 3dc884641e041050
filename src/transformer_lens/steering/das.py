"""Distributed alignment search (DAS) on any task: the subspace whose exchange between runs gives what it should.

Source: Geiger et al., arXiv 2303.02536. `find_subspace` does it for next tokens, with pairs held out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from transformer_lens.steering.bases import LearnedSubspace
from transformer_lens.steering.interchanges import (
    Positions,
    SubspaceInterchange,
    TaskLogits,
    collect_activations,
    run_with_intervention,
)


@dataclass(frozen=True, eq=False)
class Exchanges:
    """Runs between which a subspace is exchanged, and what each exchange should give.

    Attributes:
        model, hook_name, task_logits: as in `collect_activations`.
        base_inputs: the runs that are changed.
        sources: the activations that the part comes from.
        targets: the class that each exchange should give.
        positions: of each row; None: the last.
    """

    model: Any
    hook_name: str
    task_logits: TaskLogits
    base_inputs: Tensor
    sources: Float[Tensor, "pair d"]
    targets: Int[Tensor, "pair"]
    positions: Positions = None

    def logits(self, change: SubspaceInterchange, rows: Int[Tensor, "row"]) -> Float[Tensor, "row n_classes"]:
        """The task's logits of some pairs, changed."""
        where = None if self.positions is None else self.positions[rows]
        base, sources = self.base_inputs[rows], self.sources[rows]
        return run_with_intervention(
            self.model, self.hook_name, change, base, sources, self.task_logits, positions=where
        )

    def learn(
        self,
        subspace: LearnedSubspace,
        steps: Sequence[Int[Tensor, "_"]],
        *,
        lr: float,
        strength: float = 1.0,
        micro_batch_size: int | None = None,
        verbose: bool = False,
    ) -> list[float]:
        """The mean cross-entropy of each step of Adam on a subspace, in nats. The model's weights stay.

        Args:
            subspace: what is learned.
            steps: the pairs of each.
            lr: Adam's rate.
            strength: of the interchange.
            micro_batch_size: pairs that run together; None: a whole step. The result is the same.
            verbose: show a progress bar.
        """
        change, losses = SubspaceInterchange(subspace, strength), []
        optimizer = torch.optim.Adam(subspace.parameters(), lr=lr)
        for step in tqdm(steps, disable=not verbose, leave=False):
            optimizer.zero_grad()
            total = 0.0
            for rows in step.split(micro_batch_size or len(step)):
                with torch.enable_grad(), frozen(self.model):
                    logits = self.logits(change, rows)
                    wrong = cross_entropy(logits.float(), self.targets[rows].to(logits.device), reduction="sum")
                    (wrong / len(step)).backward()
                total += float(wrong.detach())
            optimizer.step()
            losses.append(total / len(step))
        return losses


@dataclass(frozen=True, eq=False)
class DASResult:
    """A subspace that was learned.

    Attributes:
        subspace: as a module.
        losses: the mean cross-entropy of each epoch, in nats.
        hook_name: where.
        rank: of the subspace.
    """

    subspace: LearnedSubspace
    losses: tuple[float, ...]
    hook_name: str
    rank: int

    @property
    def basis(self) -> Float[Tensor, "d_model rank"]:
        """Orthonormal columns that span it."""
        return self.subspace.basis.detach()


def fit_das(
    model: Any,
    hook_name: str,
    base_inputs: Tensor,
    source_inputs: Tensor,
    targets: Int[Tensor, "batch"],
    task_logits: TaskLogits,
    *,
    rank: int,
    base_positions: Positions = None,
    source_positions: Positions = None,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 0.01,
    strength: float = 1.0,
    seed: int = 0,
    device: str | torch.device | None = None,
    micro_batch_size: int | None = None,
) -> DASResult:
    """The subspace whose interchange best gives the targets, by distributed alignment search on any task.

    The model's weights stay. `find_subspace` does the same for next tokens, and holds pairs out.

    Args:
        model, hook_name, task_logits: as in `collect_activations`.
        base_inputs, source_inputs: the runs that are changed, and those that the part comes from.
        targets: the class that each change should give.
        rank: of the subspace.
        base_positions, source_positions: of each row; None: the last.
        epochs: passes over all pairs, by Adam.
        batch_size: pairs in a step.
        lr: Adam's rate.
        strength: of the interchange.
        seed: of the start and of the order of pairs; torch's own generator is left alone.
        device: where the subspace is; None: with the activations.
        micro_batch_size: pairs that run together; None: a whole step. The result is the same.

    Raises:
        ValueError: rows that do not match, or a rank that the activation does not have.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> tokens = model.to_tokens(["The Eiffel Tower is in", "The Colosseum is in"])
        >>> cities = [model.to_single_token(" Paris"), model.to_single_token(" Rome")]
        >>> task = lambda m, x: m(x)[:, -1, cities]
        >>> pairs = (tokens, tokens.flip(0), torch.tensor([1, 0]))
        >>> found = fit_das(model, "blocks.3.hook_resid_mid", *pairs, task, rank=2, epochs=10)
        >>> found.basis.shape, found.losses[-1] < found.losses[0]
        (torch.Size([128, 2]), True)
    """
    if not len(base_inputs) == len(source_inputs) == len(targets) or not len(targets):
        raise ValueError(
            f"Each pair has a base, a source and a target; got {len(base_inputs)}, {len(source_inputs)} and "
            f"{len(targets)}."
        )
    with frozen(model):
        sources = collect_activations(
            model, hook_name, source_inputs, task_logits, positions=source_positions, batch_size=batch_size
        )
    subspace = LearnedSubspace(sources.shape[-1], rank, seed=seed).to(sources.device if device is None else device)
    exchanges = Exchanges(model, hook_name, task_logits, base_inputs, sources, targets, base_positions)
    generator, count = torch.Generator().manual_seed(seed), len(targets)
    orders = [torch.randperm(count, generator=generator).split(batch_size) for _ in range(epochs)]
    steps = [step for order in orders for step in order]
    found = exchanges.learn(subspace, steps, lr=lr, strength=strength, micro_batch_size=micro_batch_size)
    totals = torch.tensor([loss * len(step) for loss, step in zip(found, steps, strict=True)], dtype=torch.float64)
    losses = (totals.view(epochs, math.ceil(count / batch_size)).sum(1) / count).tolist()
    return DASResult(subspace, tuple(losses), hook_name, rank)


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """While this lasts, the model's weights need no gradient, so that none goes below the hook point."""
    needing = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in needing:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in needing:
            parameter.requires_grad_(True)
