"""Training a model on tokens: enough for toy models and for fine-tuning on one device."""

from transformer_lens.training.config import HookedTransformerTrainConfig, TrainConfig
from transformer_lens.training.loop import train

__all__ = ["HookedTransformerTrainConfig", "TrainConfig", "train"]
