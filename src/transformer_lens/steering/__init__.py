"""Steering: directions that tell two kinds of prompts apart, and edits that add, remove, fix or exchange them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer_lens.steering.ablation import ablate_direction as ablate_direction
    from transformer_lens.steering.ablation import ablate_direction_in_weights as ablate_direction_in_weights
    from transformer_lens.steering.alignment import Alignment as Alignment
    from transformer_lens.steering.alignment import find_subspace as find_subspace
    from transformer_lens.steering.alignment import interchange_accuracy as interchange_accuracy
    from transformer_lens.steering.directions import Contrast as Contrast
    from transformer_lens.steering.directions import contrast as contrast
    from transformer_lens.steering.edits import activation_addition as activation_addition
    from transformer_lens.steering.edits import add as add
    from transformer_lens.steering.edits import clamp as clamp
    from transformer_lens.steering.edits import project_out as project_out
    from transformer_lens.steering.exchange import Interchanges as Interchanges
    from transformer_lens.steering.exchange import interchange as interchange

_HOMES = {
    "Alignment": "alignment",
    "Contrast": "directions",
    "Interchanges": "exchange",
    "ablate_direction": "ablation",
    "ablate_direction_in_weights": "ablation",
    "activation_addition": "edits",
    "add": "edits",
    "clamp": "edits",
    "contrast": "directions",
    "find_subspace": "alignment",
    "interchange": "exchange",
    "interchange_accuracy": "alignment",
    "project_out": "edits",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
