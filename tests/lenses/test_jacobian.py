"""The Jacobian lens against forward-mode derivatives, finite differences and, at the end, the logit lens."""

import copy

import pytest
import torch
from lens_models import DEMOS, SMALL_MODELS, demo_on, documents, small

from toys import TOKENS
from transformer_lens.lenses import JacobianLens, jacobian_lens, logit_derivative, mean_kl

DIRECTION = torch.randn(16, generator=torch.Generator().manual_seed(5))


def exact(name):
    """The model in float64, a step for finite differences, and what they are good for."""
    model = copy.deepcopy(small(name)).to(torch.float64)
    # Transformers' models compute norms and rotations in float32 whatever their dtype.
    return (model, 1e-3, 5e-3) if name.endswith("bridge") else (model, 1e-5, 1e-5)


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


@pytest.mark.parametrize("name", ["plain", "gated_grouped", "attn_only", "llama bridge", "gpt_neox bridge"])
def test_a_jacobian_at_a_point_moves_the_final_stream(name):
    model, step, tolerance = exact(name)
    lens = jacobian_lens(model, TOKENS[0], 3)
    for layer in range(2):
        with torch.no_grad():
            stream = model(TOKENS[:1], stop_at_layer=layer)
            ends = []
            for sign in (1, -1):
                moved = stream.clone()
                moved[:, 3] += sign * step * DIRECTION.to(moved)
                ends.append(model(moved, start_at_layer=layer, stop_at_layer=2)[0, 3])
        torch.testing.assert_close(
            lens(DIRECTION, layer), ((ends[0] - ends[1]) / (2 * step)).float(), atol=10 * tolerance, rtol=10 * tolerance
        )
    assert torch.equal(lens(DIRECTION, 2), DIRECTION)


@pytest.mark.parametrize("name", ["plain", "gpt2 bridge"])
def test_a_dataset_is_the_mean_of_its_points(name):
    model = small(name)
    together = jacobian_lens(model, TOKENS, torch.tensor([3, -1]))
    points = [jacobian_lens(model, TOKENS[row], pos).jacobians for row, pos in ((0, 3), (1, -1))]
    torch.testing.assert_close(together.jacobians, torch.stack(points).mean(0), atol=1e-5, rtol=1e-4)
    apart = jacobian_lens(model, TOKENS, torch.tensor([3, -1]), batch_size=1)
    torch.testing.assert_close(apart.jacobians, together.jacobians, atol=1e-5, rtol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


@pytest.mark.parametrize("host", DEMOS)
def test_it_is_nearer_to_the_end_than_the_logit_lens(host):
    """What the logit lens leaves out, later layers' first order, is there: on other texts KL is less at every layer."""
    model, texts = demo_on(host), documents(1, 48)
    positions = torch.randint(4, texts.shape[1], (48,), generator=torch.Generator().manual_seed(0))
    lens = jacobian_lens(model, texts, positions, batch_size=48)
    held_out = documents(2, 16)
    assert (mean_kl(model, held_out, lens)[:-1] < 0.85 * mean_kl(model, held_out)[:-1]).all()


def test_save_load_and_refusals(tmp_path):
    model = small("plain")
    lens = jacobian_lens(model, TOKENS)
    loaded = JacobianLens.load(lens.save(tmp_path / "lens"))
    assert torch.equal(loaded.jacobians, lens.jacobians)
    assert loaded.about["samples"] == 2
    with pytest.raises(ValueError, match="2 layers and width 16; got layer 3"):
        lens(DIRECTION, 3)
    with pytest.raises(ValueError, match=r"2 rows of tokens; got positions of shape \(3,\)"):
        jacobian_lens(model, TOKENS, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="from 0 to 2"):
        logit_derivative(model, TOKENS, DIRECTION, layer=3)
    with pytest.raises(ValueError, match=r"shape \[16\]; got \(3,\)"):
        logit_derivative(model, TOKENS, torch.zeros(3), layer=0)
