"""Standardised features: by the mean and deviation of the examples that are fitted, so that nothing else leaks."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Standard:
    """A shift and a scale for each feature.

    Attributes:
        mean: what is taken off.
        scale: what it is then divided by.
        constant: which features never change; their scale is 1.
    """

    mean: Float[Tensor, "feature"]
    scale: Float[Tensor, "feature"]
    constant: Bool[Tensor, "feature"]

    @classmethod
    def of(cls, features: Float[Tensor, "example feature"], floor: float = 0.0) -> Standard:
        """The mean and the deviation of these examples.

        Args:
            features: of the examples that are fitted.
            floor: the least scale of a feature that changes, so that one that hardly does is not blown up.

        Example:
            >>> import torch
            >>> standard = Standard.of(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
            >>> standard.mean, standard.scale, standard.constant
            (tensor([2., 5.]), tensor([1., 1.]), tensor([False,  True]))
        """
        constant = (features == features[0]).all(0)
        deviation = features.std(0, correction=0).clamp_min(floor)
        return cls(features.mean(0), deviation.masked_fill(constant, 1.0), constant)

    @classmethod
    def none(cls, features: Float[Tensor, "example feature"]) -> Standard:
        """No shift and no scale."""
        width = features.shape[1:]
        return cls(features.new_zeros(width), features.new_ones(width), (features == features[0]).all(0))

    def __call__(self, features: Float[Tensor, "example feature"]) -> Float[Tensor, "example feature"]:
        """The features, shifted and scaled."""
        return (features - self.mean) / self.scale
