"""Circuits: graphs of edges with scores, how they are found, and how much of the model they hold."""

from transformer_lens.circuits.acdc import acdc
from transformer_lens.circuits.circuit import Circuit
from transformer_lens.circuits.criteria import Completeness, completeness, minimality
from transformer_lens.circuits.evaluation import Evaluation, evaluate
from transformer_lens.circuits.picture import picture

__all__ = ["Circuit", "Completeness", "Evaluation", "acdc", "completeness", "evaluate", "minimality", "picture"]
