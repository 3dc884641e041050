"""An edit: a named set of interventions; and where the tokens of a pass stand, which it must know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from transformer_lens.hooks.hook_point import HookPoint
from transformer_lens.hooks.interventions import Cell, Intervention, parts_of


@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """A named set of interventions, to be put on a model by `model.edit`.

    Attributes:
        name: what it is called.
        interventions: what it changes, in this order.

    Example:
        >>> print(Edit("no head 1", (Intervention("blocks.0.attn.hook_z", "zero", head=1),)))
        no head 1
          blocks.0.attn.hook_z, all positions, head 1: becomes zero
    """

    name: str
    interventions: tuple[Intervention, ...]

    @classmethod
    def of(cls, what: Edit | Cell, name: str | None = None) -> Edit:
        """An edit of this, under this name; an edit keeps its own where none is given.

        Raises:
            TypeError: something in it is no intervention.
        """
        if isinstance(what, Edit):
            return cls(what.name if name is None else name, what.interventions)
        interventions = []
        for part in parts_of(what):
            if not isinstance(part, Intervention):
                raise TypeError(f"An edit holds interventions; got {type(part).__name__}. For hooks: model.hooks(...).")
            interventions.append(part)
        return cls("edit" if name is None else name, tuple(interventions))

    def describe(self) -> str:
        """The name, and under it each intervention in words."""
        return "\n".join([self.name, *(f"  {intervention.describe()}" for intervention in self.interventions)])

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        # Not the tensors: a list of edits is printed to see what is in force.
        return f"Edit({self.name!r}, {list(self.interventions)})"


@dataclass(frozen=True, eq=False)
class Place:
    """Where the tokens of a pass stand.

    Attributes:
        first: how many tokens came before, in a key-value cache.
        mask: which tokens are real rather than padding, [batch, key]; None: all.
    """

    first: int = 0
    mask: Shaped[Tensor, "..."] | None = None

    @property
    def begins_with_padding(self) -> bool:
        """Whether some row does, so that its first token is not at position 0."""
        return self.mask is not None and self.mask.ndim == 2 and not bool(self.mask[:, 0].all())


@dataclass(frozen=True, eq=False)
class EditHook:
    """A hook that makes an intervention in every pass of a model, wherever its tokens stand.

    Attributes:
        model: the model, which says where they stand.
        intervention: what is changed.
    """

    model: Any
    intervention: Intervention

    def __call__(self, activation: Tensor, hook: HookPoint) -> Tensor:
        """The activation, changed in place.

        Raises:
            ValueError: a position from the front, and some rows begin with padding.
        """
        change, place, prompt = self.intervention, self.model.place, self.model.prompt_length
        numbers = [change.pos] if isinstance(change.pos, int) else change.pos
        from_the_front = not isinstance(numbers, str) and any(number >= 0 for number in numbers or ())
        if from_the_front and place.begins_with_padding:
            raise ValueError(
                f"{change.describe()}. Some rows begin with padding, so that position means another token in "
                "each: use negative positions, which count from the end of the prompt, or run rows of one length."
            )
        if change.pos == "generated" and prompt is None:
            return activation
        change.edit(activation, place.first + activation.shape[change.position_axis], place.first, prompt)
        return activation
