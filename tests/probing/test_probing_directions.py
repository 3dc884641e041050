"""Directions without fitting, on planted data and against the slow way."""

import pytest
import torch

from transformer_lens.probing import difference_in_means, principal_directions


def test_difference_in_means_for_every_layer_at_once():
    features = torch.randn(3, 50, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 3 == 0
    found = difference_in_means(features, labels)
    for layer in range(3):
        expected = features[layer][labels].mean(0) - features[layer][~labels].mean(0)
        torch.testing.assert_close(found[layer], expected)
    with pytest.raises(ValueError, match=r"both occur; got \[0, 1, 2\]"):
        difference_in_means(features, torch.arange(50) % 3)


def test_principal_directions_are_eigenvectors_of_the_covariance():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 5, generator=generator) * torch.tensor([1.0, 8.0, 2.0, 0.5, 4.0]) + 3
    found = principal_directions(features, k=5)
    values, vectors = torch.linalg.eigh(features.T.cov())
    torch.testing.assert_close(found.variance, values.flip(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((found.directions @ vectors.flip(1)).abs(), torch.eye(5), atol=1e-3, rtol=1e-3)
    assert found.share.sum() == pytest.approx(1, abs=1e-5)
    assert found.directions[0].abs().argmax() == 1
    coordinates = found.coordinates(features)
    torch.testing.assert_close(coordinates.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(coordinates.var(0), found.variance, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"from 1 to 5 for features of shape \(200, 5\); got 6"):
        principal_directions(features, k=6)
