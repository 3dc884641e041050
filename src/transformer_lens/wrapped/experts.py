"""The inside of a router: its logits and probabilities, seen through the family's own code so that edits there act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from transformer_lens.errors import TransformerLensError
from transformer_lens.wrapped.attention import SOFTMAXES
from transformer_lens.wrapped.sites import Site
from transformer_lens.wrapped.wiring import Wiring

Routing = Literal["logits", "probabilities"]
FUNCTIONS: dict[Routing, set[Any]] = {
    "logits": {functional.linear, torch.matmul, Tensor.matmul},
    "probabilities": SOFTMAXES,
}


class UnseenRouterError(TransformerLensError, RuntimeError):
    """A router ran without the step at which a hook looks."""


@dataclass
class RouterPart(Site):
    """What a router's linear layer gives, or its softmax: [batch * pos, expert] each.

    Attributes:
        path: the router.
        part: which of the two.
    """

    path: str
    part: Routing

    def wire(self, wiring: Wiring, occupant: nn.Module) -> None:
        """See `Site.wire`."""
        occupants = wiring.shared.get(("router", self.path))
        if occupants is None:
            occupants = wiring.shared["router", self.path] = {}
            wiring.within(self.path, lambda: WatchRouter(self.path, occupants), WatchRouter.check)
        occupants[self.part] = occupant


class WatchRouter(TorchFunctionMode):
    """Sees one call of a router.

    Args:
        path: the router.
        occupants: who looks at what.
    """

    def __init__(self, path: str, occupants: dict[Routing, nn.Module]):
        super().__init__()
        self.path = path
        self.occupants = occupants
        self.waiting = set(occupants)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What `func` gives, seen and edited."""
        output = func(*args, **(kwargs or {}))
        for part in tuple(self.waiting):
            if func in FUNCTIONS[part]:
                self.waiting.discard(part)
                output = self.occupants[part](output)
        return output

    def check(self) -> None:
        """Raise if a hook was not called.

        Raises:
            UnseenRouterError: this router ran without the step that a hook waits for.
        """
        if self.waiting:
            raise UnseenRouterError(
                f"The router {self.path} ran without a step that could be seen, so these hooks did not fire: "
                f"{', '.join(sorted(self.waiting))}. Remove them."
            )
