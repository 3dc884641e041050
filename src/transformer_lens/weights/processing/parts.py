"""A canonical state, worked through part by part: each layer alone, in float32, and then written back.

No step of weight processing reads across layers. So all steps are done on one layer before the next is read: in memory
there is never more than one layer beyond the state itself, and low-precision weights are rounded once.
"""

from collections.abc import Callable, Iterable, MutableMapping

import torch
from torch import Tensor

State = MutableMapping[str, Tensor]
"""Canonical names (those of `HookedTransformer.state_dict()`) to tensors."""
Part = dict[str, Tensor]
"""The tensors of one layer by their names in it ("attn.W_Q"), or of embedding or unembedding by their full names."""
Step = Callable[[Part], None]


def apply(state: State, steps: Iterable[Step]) -> None:
    """Do all steps on each part in turn, replacing entries of `state`; its tensors themselves are never written to.

    Float64 stays; anything narrower than float32 is computed in float32 and cast back. Entries that no step changed
    keep their tensor.
    """
    steps = list(steps)
    for prefix, names in _parts(state):
        before = {name: state[prefix + name] for name in names}
        part = {name: wide(tensor) for name, tensor in before.items()}
        unchanged = dict(part)
        for step in steps:
            step(part)
        for name in names:
            if name not in part:
                del state[prefix + name]
        for name, tensor in part.items():
            if tensor is not unchanged.get(name):
                state[prefix + name] = tensor.to(before[name].dtype if name in before else _dtype(before))


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or as it is if it is wider or holds no floats."""
    return x.float() if x.is_floating_point() and x.dtype != torch.float64 else x


def _dtype(part: Part) -> torch.dtype:
    # What a step creates has the dtype of the matrices around it.
    return next(tensor.dtype for name, tensor in part.items() if "W_" in name)


def _parts(state: State) -> list[tuple[str, list[str]]]:
    parts: dict[str, list[str]] = {}
    ends: dict[str, list[str]] = {}
    for name in state:
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            parts.setdefault(f"blocks.{layer}.", []).append(rest)
        else:
            module = name.split(".")[0]
            ends.setdefault("unembed" if module == "ln_final" else module, []).append(name)
    return [*parts.items(), *(("", names) for names in ends.values())]
