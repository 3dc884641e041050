"""Directions found without fitting: the difference between class means, and principal components."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def difference_in_means(
    features: Float[Tensor, "*layer example width"], labels: Int[Tensor, "example"] | Bool[Tensor, "example"]
) -> Float[Tensor, "*layer width"]:
    """The mean of the examples labelled 1 less that of those labelled 0, not normalised.

    Source: Marks and Tegmark, "The Geometry of Truth", 2023, arXiv 2310.06824.

    Raises:
        ValueError: labels are not 0 and 1, or one of them does not occur.

    Example:
        >>> difference_in_means(torch.tensor([[1.0, 0.0], [3.0, 0.0], [1.0, 4.0]]), torch.tensor([0, 0, 1]))
        tensor([-1.,  4.])
    """
    if sorted(labels.unique().tolist()) != [0, 1]:
        raise ValueError(f"labels are 0 and 1, and both occur; got {labels.unique().tolist()}.")
    yes = labels.bool()
    return features[..., yes, :].mean(-2) - features[..., ~yes, :].mean(-2)


@dataclass(frozen=True)
class PrincipalDirections:
    """The directions in which features vary most.

    Attributes:
        directions: of unit length, the most varied first; their signs are arbitrary.
        variance: along each.
        share: of the whole variance, along each.
        mean: of the features, where the directions begin.
    """

    directions: Float[Tensor, "k width"]
    variance: Float[Tensor, "k"]
    share: Float[Tensor, "k"]
    mean: Float[Tensor, "width"]

    def coordinates(self, features: Float[Tensor, "*example width"]) -> Float[Tensor, "*example k"]:
        """How far features lie along each direction from the mean."""
        along: Tensor = (features - self.mean) @ self.directions.T
        return along


def principal_directions(features: Float[Tensor, "example width"], k: int = 2) -> PrincipalDirections:
    """The k principal components of features, through a singular value decomposition of the centred rows.

    Raises:
        ValueError: k is below 1 or above what the features allow.

    Example:
        >>> line = torch.outer(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([3.0, 4.0]))
        >>> found = principal_directions(line, k=1)
        >>> found.directions.abs(), found.share
        (tensor([[0.6000, 0.8000]]), tensor([1.]))
    """
    most = min(features.shape[0] - 1, features.shape[1])
    if not 1 <= k <= most:
        raise ValueError(f"k is from 1 to {most} for features of shape {tuple(features.shape)}; got {k}.")
    rows = features.detach().float()
    mean = rows.mean(0)
    _, singular, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    variance = singular**2 / (len(rows) - 1)
    return PrincipalDirections(directions[:k], variance[:k], variance[:k] / variance.sum(), mean)
