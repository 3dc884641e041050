"""The tables of rotary embeddings: the two tensors that one module returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from transformer_lens.wrapped.sites import Site
from transformer_lens.wrapped.wiring import Wiring

TABLES = ("cos", "sin")


def makes_one_pair(model: nn.Module, path: str) -> bool:
    """Whether there is a module at `path`, and it makes one pair of tables, not one for each type of layer."""
    module = dict(model.named_modules()).get(path)
    return module is not None and "layer_types" not in vars(module)


@dataclass
class RotaryTable(Site):
    """Cosines or sines by which queries and keys of all layers are rotated: [batch or 1, pos, d_rotary].

    Attributes:
        path: the module that makes them.
        place: which of the two it returns.
    """

    path: str
    place: int

    def wire(self, wiring: Wiring, occupant: nn.Module) -> None:
        """See `Site.wire`."""

        def hook(module: nn.Module, args: Any, output: tuple[Any, ...]) -> Any:
            new = occupant(output[self.place])
            return None if new is output[self.place] else (*output[: self.place], new, *output[self.place + 1 :])

        wiring.handles.append(wiring.module(self.path).register_forward_hook(hook))
