"""Families of models as data: one frozen spec for each, no torch."""

from transformer_lens.specs.reading import HFConfig, UnsupportedModelError
from transformer_lens.specs.spec import Part, Spec, Weight
from transformer_lens.specs.table import ENCODERS, FAMILIES, fields_of, find_spec

__all__ = [
    "ENCODERS",
    "FAMILIES",
    "HFConfig",
    "Part",
    "Spec",
    "UnsupportedModelError",
    "Weight",
    "fields_of",
    "find_spec",
]
