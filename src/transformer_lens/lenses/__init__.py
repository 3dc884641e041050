"""Reading activations in the vocabulary: what the stream says at each layer, and which parts write the answer."""

from transformer_lens.lenses.attribution import head_attribution
from transformer_lens.lenses.detectors import HeadScores, head_scores
from transformer_lens.lenses.logit_lens import LogitLens, logit_lens

__all__ = ["HeadScores", "LogitLens", "head_attribution", "head_scores", "logit_lens"]
