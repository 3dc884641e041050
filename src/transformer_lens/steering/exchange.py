"""Interchange interventions: a part of one run, as a whole or in a subspace, takes its value from another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.hooks.edits import Edit
from transformer_lens.hooks.interventions import Intervention
from transformer_lens.steering.values import Exchanged, orthonormal


def interchange(
    hook: str,
    source: Mapping[str, Tensor],
    subspace: Float[Tensor, "... d"],
    *,
    pos: int | Sequence[int] | None = None,
    head: int | None = None,
) -> Edit:
    """An edit that takes an activation's part in a subspace from another run.

    Source: Geiger et al., "Finding Alignments Between Interpretable Causal Variables and Distributed Neural
    Representations", arXiv 2303.02536. For the whole activation use `Intervention(hook, cache)`.

    Args:
        hook: full name of a hook point.
        source: a cache of the other run, of as many positions.
        subspace: directions that span it, [d] or [k, d]; they need not be orthonormal.
        pos: positions; None: all.
        head: which head, where the hook point has them.

    Raises:
        ValueError: a position that the other run does not have, or directions that are not independent.

    Example:
        >>> import torch
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> _, rome = model.run_with_cache("The Colosseum is in")
        >>> hook = "blocks.3.hook_resid_mid"
        >>> with model.edit(interchange(hook, rome, torch.eye(128), pos=-1)):
        ...     logits = model("The Eiffel Tower is in")
        >>> model.to_string(logits[0, -1].argmax())
        ' Rome'
    """
    where = Intervention(hook, source, pos=pos, head=head)
    activation = source[hook]
    positions = where.positions(activation.shape[where.position_axis])
    value = Exchanged(activation[where.index(positions)].detach(), orthonormal(subspace))
    return Edit("interchange", (Intervention(hook, value, pos=pos, head=head),))


@dataclass(frozen=True, eq=False)
class Interchanges:
    """Pairs of runs, and what the model should say when a variable of one has its value in the other.

    Attributes:
        base: token ids of the runs that are changed, [pair, pos].
        source: token ids of the runs that the value comes from, [pair, pos].
        label: the next token that the change should give, [pair].

    Example:
        >>> import torch
        >>> pairs = Interchanges(torch.tensor([[1, 2]]), torch.tensor([[3, 4]]), torch.tensor([5]))
        >>> len(pairs)
        1
    """

    base: Int[Tensor, "pair pos"]
    source: Int[Tensor, "pair source_pos"]
    label: Int[Tensor, "pair"]

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice | Int[Tensor, "row"]) -> Interchanges:
        return Interchanges(self.base[rows], self.source[rows], self.label[rows])
