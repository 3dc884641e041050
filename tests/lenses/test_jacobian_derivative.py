"""Derivatives of logits by a stream against finite differences and, at the end, the logit lens."""

import pytest
import torch
from lens_models import DIRECTION, SMALL_MODELS, exact, small

from toys import TOKENS
from transformer_lens.lenses import logit_derivative


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_derivative_is_what_a_small_step_does(name):
    model, step, tolerance = exact(name)
    for layer, position in ((0, 2), (1, -1)):
        with torch.no_grad():
            stream = model(TOKENS, stop_at_layer=layer)
            ends = []
            for sign in (1, -1):
                moved = stream.clone()
                moved[:, position] += sign * step * DIRECTION.to(moved)
                ends.append(model(moved, start_at_layer=layer))
        found = logit_derivative(model, TOKENS, DIRECTION, layer=layer, position=position)
        torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * step), atol=tolerance, rtol=tolerance)
        if position == 2:
            assert found[:, :2].abs().max() == 0
            assert found[:, 2:].abs().max() > 0.1


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_at_the_end_it_is_the_logit_lens_linearised(name):
    model = small(name)
    with torch.no_grad():
        final = model(TOKENS, stop_at_layer=2)
        _, cache = model.run_with_cache(TOKENS)
    found = logit_derivative(model, TOKENS, DIRECTION, layer=2)[:, -1]
    readout = cache.readout
    moved = torch.autograd.functional.jvp(
        lambda x: readout.logits(readout.normed(x)), final[:, -1], DIRECTION.expand(2, -1)
    )[1]
    torch.testing.assert_close(found, moved, atol=1e-5, rtol=1e-4)


def test_what_has_no_derivative():
    model = small("plain")
    with pytest.raises(ValueError, match="from 0 to 2"):
        logit_derivative(model, TOKENS, DIRECTION, layer=3)
    with pytest.raises(ValueError, match=r"shape \[16\]; got \(3,\)"):
        logit_derivative(model, TOKENS, torch.zeros(3), layer=0)
