"""Initial values have the spread that their fans ask for."""

import math

import pytest
import torch

from annotations import unchecked
from transformer_lens.native import fans


def test_fans_of_each_shape():
    assert fans.calc_fan_in_and_fan_out(torch.ones(5)) == (1, 5)
    assert fans.calc_fan_in_and_fan_out(torch.ones(3, 5)) == (3, 5)
    assert fans.calc_fan_in_and_fan_out(torch.ones(2, 3, 5)) == (3, 10)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 1, 1\)"):
        fans.calc_fan_in_and_fan_out(torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("fill", "deviation"),
    [
        (lambda t: fans.init_xavier_uniform_(t, gain=2.0), 2 * math.sqrt(2 / 900)),
        (fans.init_xavier_normal_, math.sqrt(2 / 900)),
        (fans.init_kaiming_uniform_, math.sqrt(2 / 300)),
        (lambda t: fans.init_kaiming_normal_(t, nonlinearity="linear", mode="fan_out"), math.sqrt(1 / 600)),
        (lambda t: fans.init_kaiming_normal_(t, a=1.0, nonlinearity="leaky_relu", gain=3.0), 3 * math.sqrt(1 / 300)),
    ],
)
def test_spread(fill, deviation):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.empty(300, 600))
    assert fill(weight) is weight
    assert math.isclose(weight.std().item(), deviation, rel_tol=0.02)
    assert abs(weight.mean().item()) < deviation / 50


def test_settings_without_effect_are_errors():
    with pytest.raises(ValueError, match="no effect with nonlinearity='relu'"):
        fans.init_kaiming_normal_(torch.empty(2, 2), a=0.1)
    with unchecked(), pytest.raises(ValueError, match="known: 'fan_in' and 'fan_out'"):
        fans.init_kaiming_normal_(torch.empty(2, 2), mode="fan_avg")
