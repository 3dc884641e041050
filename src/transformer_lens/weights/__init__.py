"""Weights as an object of study: factored matrices, their singular vectors, composition between heads."""

from transformer_lens.weights.composition import (
    CompositionScores,
    all_composition_scores,
    attention_composition_scores,
    composition_scores,
)
from transformer_lens.weights.factored_matrix import FactoredMatrix, get_matrix_corner
from transformer_lens.weights.matrix_index import WeightsError
from transformer_lens.weights.svd_interpreter import SVDInterpreter

__all__ = [
    "CompositionScores",
    "FactoredMatrix",
    "SVDInterpreter",
    "WeightsError",
    "all_composition_scores",
    "attention_composition_scores",
    "composition_scores",
    "get_matrix_corner",
]
