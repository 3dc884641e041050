"""Interchange interventions on any task: what a subspace carries from one run to another, with its control.

A task is a function task_logits(model, inputs) that runs the model and returns the logits of the classes in question,
[batch, class]. Source: Geiger et al., arXiv 2303.02536.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.steering.bases import LearnedSubspace
from transformer_lens.steering.values import Exchanged

TaskLogits = Callable[[Any, Tensor], Tensor]
Positions = Int[Tensor, "batch"] | None


@dataclass(frozen=True, eq=False)
class SubspaceInterchange:
    """An activation with its part in a subspace moved towards another run's.

    Attributes:
        basis: orthonormal columns, or a subspace that is being learned.
        strength: 1 exchanges the part, 0 leaves it.
    """

    basis: Float[Tensor, "d_model rank"] | LearnedSubspace
    strength: float = 1.0

    def __call__(
        self, base: Float[Tensor, "batch d_model"], source: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, "batch d_model"]:
        """The activation after the move.

        Example:
            >>> moved = SubspaceInterchange(torch.eye(2, 1))(torch.zeros(1, 2), torch.ones(1, 2))
            >>> moved
            tensor([[1., 0.]])
        """
        columns = self.basis if isinstance(self.basis, Tensor) else self.basis.basis
        return base + self.strength * (Exchanged(source, columns.T)(base) - base)


@dataclass(frozen=True, eq=False)
class NormMatchedPlacebo:
    """The control of an interchange: each row moves as far as it would there, but in another subspace.

    It moves towards the other run's part in that subspace, and not at all where the two runs agree in it.

    Attributes:
        reference: the interchange that says how far.
        basis: orthonormal columns of the other subspace.
    """

    reference: SubspaceInterchange
    basis: Float[Tensor, "d_model rank"]

    def __call__(
        self, base: Float[Tensor, "batch d_model"], source: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, "batch d_model"]:
        """The activation after the move.

        Example:
            >>> placebo = NormMatchedPlacebo(SubspaceInterchange(torch.eye(2, 1)), torch.eye(2)[:, 1:])
            >>> placebo(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]))
            tensor([[0., 3.]])
        """
        far = (self.reference(base, source) - base).norm(dim=-1, keepdim=True)
        move = SubspaceInterchange(self.basis)(base, source) - base
        length = move.norm(dim=-1, keepdim=True)
        return base + torch.where(length > 0, move * far / length.clamp_min(1e-30), 0.0)


Change = SubspaceInterchange | NormMatchedPlacebo


@torch.no_grad()
def collect_activations(
    model: Any,
    hook_name: str,
    inputs: Tensor,
    task_logits: TaskLogits,
    *,
    positions: Positions = None,
    batch_size: int = 256,
) -> Float[Tensor, "batch d_model"]:
    """The activation of each row at one position, while the task runs.

    Args:
        model: any model with hooks.
        hook_name: a hook point with axes [batch, pos, d], or [batch, d].
        inputs: what the task runs on, one row each.
        task_logits: see the module.
        positions: the position of each row; None: the last.
        batch_size: rows that run together.

    Raises:
        ValueError: the hook point has other axes, or did not run.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> tokens = model.to_tokens("The Eiffel Tower is in")
        >>> collect_activations(model, "blocks.3.hook_resid_mid", tokens, lambda m, x: m(x)[:, -1]).shape
        torch.Size([1, 128])
    """
    found = []
    for rows in _batches(len(inputs), batch_size):
        kept: list[Tensor] = []
        where = None if positions is None else positions[rows]

        def keep(activation: Tensor, hook: Any, where: Positions = where, kept: list[Tensor] = kept) -> None:
            kept.append(activation[_index(activation, where, hook_name)].detach().clone())

        with model.hooks(fwd_hooks=[(hook_name, keep)]):
            task_logits(model, inputs[rows])
        if len(kept) != 1:
            raise ValueError(f"The task must run {hook_name} once; it ran {len(kept)} times.")
        found.append(kept[0])
    return torch.cat(found)


def run_with_intervention(
    model: Any,
    hook_name: str,
    intervention: Change,
    base_inputs: Tensor,
    source_activations: Float[Tensor, "batch d_model"],
    task_logits: TaskLogits,
    *,
    positions: Positions = None,
) -> Float[Tensor, "batch n_classes"]:
    """The task's logits while each row's activation is changed by that of its source. Gradients flow.

    Args:
        model, hook_name, task_logits, positions: as in `collect_activations`.
        intervention: what is done with the two activations.
        base_inputs: what the task runs on.
        source_activations: of the other runs, one for each row.

    Raises:
        ValueError: the hook point has other axes, or there is not one source for each row.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> hook, task = "blocks.3.hook_resid_mid", lambda m, x: m(x)[:, -1]
        >>> paris, rome = model.to_tokens(["The Eiffel Tower is in", "The Colosseum is in"]).split(1)
        >>> source = collect_activations(model, hook, rome, task)
        >>> logits = run_with_intervention(model, hook, SubspaceInterchange(torch.eye(128)), paris, source, task)
        >>> model.to_string(logits[0].argmax())
        ' Rome'
    """
    if len(source_activations) != len(base_inputs):
        raise ValueError(f"There are {len(base_inputs)} rows and {len(source_activations)} source activations.")

    def change(activation: Tensor, hook: Any) -> Tensor:
        index = _index(activation, positions, hook_name)
        base = activation[index]
        changed = activation.clone()
        changed[index] = intervention(base, source_activations.to(base)).to(base)
        return changed

    with model.hooks(fwd_hooks=[(hook_name, change)]):
        return task_logits(model, base_inputs)


@torch.no_grad()
def intervened_logits(
    model: Any,
    hook_name: str,
    intervention: Change,
    base_inputs: Tensor,
    source_activations: Float[Tensor, "batch d_model"],
    task_logits: TaskLogits,
    *,
    positions: Positions = None,
    batch_size: int = 256,
) -> Float[Tensor, "batch n_classes"]:
    """`run_with_intervention` without gradients, batch_size rows at a time.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> tokens, nothing = model.to_tokens("The Eiffel Tower is in"), torch.zeros(1, 128)
        >>> change = SubspaceInterchange(torch.eye(128), strength=0.0)
        >>> logits = intervened_logits(model, "hook_embed", change, tokens, nothing, lambda m, x: m(x)[:, -1])
        >>> torch.allclose(logits, model(tokens)[:, -1])
        True
    """
    found = []
    for rows in _batches(len(base_inputs), batch_size):
        where = None if positions is None else positions[rows]
        found.append(
            run_with_intervention(
                model, hook_name, intervention, base_inputs[rows], source_activations[rows], task_logits,
                positions=where,
            )
        )  # fmt: skip
    return torch.cat(found)


def _batches(count: int, size: int) -> list[slice]:
    if size < 1:
        raise ValueError(f"batch_size is at least 1; got {size}.")
    return [slice(start, start + size) for start in range(0, count, size)]


def _index(activation: Tensor, positions: Positions, hook_name: str) -> tuple[Any, ...]:
    """The index of each row's vector."""
    if activation.ndim == 2 and positions is None:
        return (slice(None),)
    if activation.ndim != 3:
        raise ValueError(
            f"A subspace is exchanged in activations [batch, pos, d]{' or [batch, d]' if positions is None else ''}; "
            f"{hook_name} has shape {tuple(activation.shape)}."
        )
    rows = torch.arange(len(activation), device=activation.device)
    return rows, -1 if positions is None else positions.to(activation.device)
