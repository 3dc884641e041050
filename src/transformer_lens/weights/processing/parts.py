"""A canonical state, worked through part by part: each layer alone, in float32, and then written back.

No step of weight processing reads across layers. So all steps are done on one layer before the next is read: in memory
there is never more than what changes in one layer beyond the state itself, and low-precision weights are rounded once.
"""

from collections.abc import Callable, Iterable, Iterator, MutableMapping

import torch
from torch import Tensor
from tqdm import tqdm

State = MutableMapping[str, Tensor]
"""Canonical names (those of `HookedTransformer.state_dict()`) to tensors."""


class Part(MutableMapping[str, Tensor]):
    """The tensors of one layer by their names in it ("attn.W_Q"), or of embedding or unembedding by their full names.

    Read, they are float32 (or wider). They are not to be written to, but for what `room` returns.

    Attributes:
        changed: the names whose tensors are new.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        self._tensors = tensors
        self.changed: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        return tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self._tensors[name] = tensor
        self.changed.add(name)

    def __delitem__(self, name: str) -> None:
        del self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def room(self, name: str) -> Tensor | None:
        """Where a new value of this tensor may be written (`out=`): its own memory, if that is already a new one."""
        # NOTE: no large pages here (NumPy would ask for them). On a busy virtual machine they took four times as long.
        return self._tensors[name] if name in self.changed else None


Step = Callable[[Part], None]


@torch.no_grad()
def apply(state: State, steps: Iterable[Step]) -> None:
    """Do all steps on each part in turn, replacing entries of `state`; its tensors themselves are never written to.

    Float64 stays; anything narrower than float32 is computed in float32 and cast back. Entries that no step changed
    keep their tensor.
    """
    steps = list(steps)
    for prefix, names in tqdm(_parts(state), desc="Processing weights", unit="part", delay=1.0, leave=False):
        part = Part({name: state[prefix + name] for name in names})
        dtypes = {name: state[prefix + name].dtype for name in names}
        around = next((dtype for name, dtype in dtypes.items() if "W_" in name), torch.float32)
        for step in steps:
            step(part)
        for name in names:
            if name not in part:
                del state[prefix + name]
        for name in part.changed & part.keys():
            state[prefix + name] = part.pop(name).to(dtypes.get(name, around))  # a new bias: as the matrices around it


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
