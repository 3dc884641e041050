"""What a loaded model remembers of where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from transformer_lens.specs import Spec


@dataclass(frozen=True)
class Origin:
    """Where a model came from; `to_hf` goes back by it.

    Attributes:
        spec: the family.
        hf_config: the HF configuration.
        sizes: lengths of the axes in the family's patterns, of the whole model as HF has it.
        tied: its unembedding was its embedding.
        kept: tensors that the way to canonical could not keep exactly, by canonical name; often
            they are mapped from a file, or another model's.
    """

    spec: Spec
    hf_config: Mapping[str, Any] = field(repr=False)
    sizes: Mapping[str, int] = field(repr=False)
    tied: bool
    kept: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        # Nothing here changes, and what is kept would cost memory.
        return self
