"""Activation functions, soft caps and linear maps under the names that the field's utilities gave them."""

import pytest
import torch

from transformer_lens.config import TransformerLensConfig
from transformer_lens.native import activations, linear
from transformer_lens.native.activations import ActivationFunctionFactory


def test_gelu_by_its_formula():
    x = torch.linspace(-4, 4, 50)
    slow = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    for function in (activations.gelu_new, activations.gelu_pytorch_tanh, activations.gelu_fast):
        assert torch.allclose(function(input=x), slow, atol=1e-5)


def test_xielu_is_smooth_and_has_its_slopes():
    x = torch.tensor([-1.0, -1e-4, 1e-4, 2.0], requires_grad=True)
    y = activations.xielu(input=x)
    assert torch.allclose(y, activations.XIELU(0.8, 0.8, 0.5, -1e-6)(x))
    assert torch.allclose(y[3], 0.8 * x[3] ** 2 + 0.5 * x[3])
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope[1:3], torch.tensor(0.5), atol=1e-3)


def test_soft_caps():
    x = torch.linspace(-100, 100, 9)
    assert torch.equal(activations.apply_softcap(x, -1.0), x)
    assert torch.equal(activations.apply_softcap(x, None), x)
    assert activations.apply_softcap(x, 30.0).abs().max() <= 30
    assert not activations.softcap_enabled(0.0)


def test_linear_maps_are_the_sums_they_say():
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 3, 4), torch.randn(5, 4, 6), torch.randn(5, 6)
    simple = torch.stack([x @ w[h] + b[h] for h in range(5)], 2)
    assert torch.allclose(linear.simple_attn_linear(x, w, b), simple, atol=1e-6)
    same = x[:, :, None].expand(-1, -1, 5, -1)
    assert torch.allclose(linear.complex_attn_linear(same, w, b), simple, atol=1e-6)
    assert torch.allclose(linear.batch_addmm(b[0], w[0], x), x @ w[0] + b[0], atol=1e-6)
    assert torch.allclose(linear.vanilla_addmm(b[0], x[0], w[0]), x[0] @ w[0] + b[0], atol=1e-6)
    assert linear.clamp_qkv(x, x, x, 0.5)[2].abs().max() == 0.5


@pytest.mark.parametrize("n_heads", [1, 3])
def test_a_cache_of_another_batch_has_no_offset(n_heads):
    from transformer_lens import HookedTransformer
    from transformer_lens.native.key_value_cache import TransformerLensKeyValueCache

    model = HookedTransformer({"n_layers": 1, "d_model": 12, "d_head": 4, "n_heads": n_heads, "n_ctx": 8, "d_vocab": 9})
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", batch_size=2)
    model(torch.tensor([[1, 2, 3], [4, 5, 6]]), past_kv_cache=cache)
    assert model.get_pos_offset(cache, 2) == 3
    assert model.get_pos_offset(None, 2) == 0
    with pytest.raises(ValueError, match="batch of 2; these tokens are 3"):
        model.get_pos_offset(cache, 3)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("relu", [0.0, 0.5, 2.0]),
        ("gelu", [-0.1587, 0.3457, 1.9545]),
        ("gelu_new", [-0.1588, 0.3457, 1.9546]),
        ("gelu_fast", [-0.1588, 0.3457, 1.9546]),
        ("silu", [-0.2689, 0.3112, 1.7616]),
        ("solu", [-0.0391, 0.0876, 1.5712]),
        ("solu_ln", [-0.0391, 0.0876, 1.5712]),
        ("gelu_pytorch_tanh", [-0.1588, 0.3457, 1.9546]),
        ("xielu", [-0.2057, 0.4500, 4.2000]),
        ("relu2", [0.0, 0.25, 4.0]),
    ],
)
def test_the_function_of_a_configuration_gives_the_numbers_of_4_3(name, values):
    cfg = TransformerLensConfig(d_model=8, d_head=4, n_layers=1, n_ctx=6, act_fn=name)
    picked = ActivationFunctionFactory.pick_activation_function(cfg)
    torch.testing.assert_close(picked(torch.tensor([-1.0, 0.5, 2.0])), torch.tensor(values), rtol=0, atol=6e-5)


def test_an_unknown_function_is_refused():
    cfg = TransformerLensConfig(d_model=8, d_head=4, n_layers=1, n_ctx=6, act_fn="zork")
    with pytest.raises(ValueError, match="No activation function is called 'zork'; there are relu, relu2"):
        ActivationFunctionFactory.pick_activation_function(cfg)
