"""What an analysis of a cache refuses: a decomposition that does not exist, and weights that are not here."""

from transformer_lens.errors import TransformerLensError


class UndefinedDecompositionError(TransformerLensError, ValueError):
    """The parts that were asked for do not exist in this model, or do not sum to anything."""


class MissingWeightsError(TransformerLensError, ValueError):
    """The question needs weights of the model that made the cache, and they are not here; says how to get them."""
