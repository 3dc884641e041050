"""Parameters: their names, shapes and memory, and what torch does with them."""

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from toys import KINDS, TOKENS, hook_count, randomise, toy
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.errors import TransformerLensError

ATTENTION = ("W_Q", "W_K", "W_V")


def is_view(model):
    """Whether every weight goes into its matmul as a view."""
    for block in model.blocks:
        for name, weight in block.attn.named_parameters():
            if name.lstrip("_") in ATTENTION:
                block_of_it = weight.permute(1, 0, 2).reshape(weight.shape[1], -1)
            elif name == "W_O":
                block_of_it = weight.flatten(0, 1)
            else:
                continue
            if block_of_it.data_ptr() != weight.data_ptr():
                return False
    return True


def test_shapes_are_the_fields():
    model = toy("gated_grouped")
    assert model.W_Q.shape == model.W_K.shape == (2, 4, 16, 4)
    assert model.blocks[0].attn._W_K.shape == (2, 16, 4)
    assert torch.equal(model.W_K[0, 1], model.blocks[0].attn._W_K[0])
    assert torch.equal(model.W_V[1, 2], model.blocks[1].attn._W_V[1])
    assert torch.equal(model.b_K[0, 3], model.blocks[0].attn._b_K[1])
    assert model.W_O.shape == (2, 4, 4, 16)
    assert model.b_Q.shape == model.b_V.shape == (2, 4, 4)
    assert model.b_O.shape == model.b_out.shape == (2, 16)
    assert model.W_in.shape == model.W_gate.shape == (2, 16, 20)
    assert model.W_out.shape == (2, 20, 16)
    assert model.b_in.shape == (2, 20)
    assert model.W_E.shape == (31, 16)
    assert model.W_U.shape == (16, 31)
    assert toy().W_pos.shape == (24, 16)
    assert torch.equal(toy().W_E_pos, torch.cat([toy().W_E, toy().W_pos]))
    assert toy().W_gate is None
    with pytest.raises(TransformerLensError, match="rotary"):
        _ = model.W_pos
    with pytest.raises(TransformerLensError, match="attention-only"):
        _ = toy("attn_only").W_in


def test_experts_are_stacked():
    model = toy("experts")
    assert model.W_in.shape == (2, 3, 16, 12)
    assert torch.equal(model.W_out[1, 2], model.blocks[1].mlp.experts[2].W_out.weight.T)
    assert model.b_in.abs().sum() == model.b_out.abs().sum() == 0


def test_factored_matrices_of_the_heads():
    model = toy("gated_grouped")
    torch.testing.assert_close(model.QK.AB[1, 2], model.W_Q[1, 2] @ model.W_K[1, 2].T)
    torch.testing.assert_close(model.OV.AB[1, 2], model.W_V[1, 2] @ model.W_O[1, 2])
    torch.testing.assert_close(model.blocks[0].attn.OV.AB, model.OV.AB[0])
    torch.testing.assert_close(model.blocks[0].attn.QK.AB, model.QK.AB[0])


def test_accumulated_bias():
    model = toy()
    torch.testing.assert_close(model.accumulated_bias(0), torch.zeros(16))
    torch.testing.assert_close(model.accumulated_bias(2), (model.b_O + model.b_out).sum(0))
    torch.testing.assert_close(model.accumulated_bias(1, mlp_input=True), model.b_O.sum(0) + model.b_out[0])
    torch.testing.assert_close(model.accumulated_bias(2, include_mlp_biases=False), model.b_O.sum(0))
    with pytest.raises(ValueError, match="past the last"):
        model.accumulated_bias(2, mlp_input=True)
    assert model.all_head_labels() == ["L0H0", "L0H1", "L0H2", "L0H3", "L1H0", "L1H1", "L1H2", "L1H3"]


def test_numbers_of_parameters():
    model = toy()
    assert model.n_params_total == sum(value.numel() for value in model.state_dict().values())
    assert model.cfg.n_params == 2 * (4 * 4 * 16 * 4 + 2 * 16 * 20)


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "gated_grouped"])
def test_no_weight_is_copied_whatever_torch_does_with_the_model(kind, tmp_path):
    model = toy(kind)
    assert is_view(model)
    assert is_view(copy.deepcopy(model))
    assert is_view(pickle.loads(pickle.dumps(model)))
    assert is_view(copy.deepcopy(model).to(torch.float64))
    assert is_view(copy.deepcopy(model).to(torch.bfloat16).to(torch.float32))
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other = toy(kind, seed=1)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert is_view(other)
    assert torch.equal(other(TOKENS), model(TOKENS))
    optimizer = torch.optim.Adam(model.parameters(), fused=False)
    model(TOKENS, return_type="loss").backward()
    optimizer.step()
    assert is_view(model)
    assert optimizer.state[model.blocks[0].attn.W_Q]["exp_avg"].stride() == model.blocks[0].attn.W_Q.stride()


@pytest.mark.parametrize("kind", ["plain", "gated_grouped"])
def test_a_weight_in_another_layout_gives_the_same_numbers(kind):
    model = toy(kind)
    logits = model(TOKENS)
    for block in model.blocks:
        for part in (block.attn, block.mlp):
            for name, weight in list(part.named_parameters()):
                setattr(part, name, nn.Parameter(weight.detach().contiguous()))
    model.unembed.W_U = nn.Parameter(model.W_U.detach().contiguous())
    assert model.blocks[0].attn.W_Q.is_contiguous()
    torch.testing.assert_close(model(TOKENS), logits)


def test_a_weight_assigned_to_grouped_keys_reaches_the_parameter():
    model = toy("gated_grouped")
    model.blocks[0].attn.W_K = nn.Parameter(torch.zeros(2, 16, 4))
    assert model.W_K[0].abs().sum() == 0
    assert "blocks.0.attn._W_K" in model.state_dict()
    assert "blocks.0.attn.W_K" not in model.state_dict()


def test_state_dict_is_plain_tensors_that_safetensors_takes(tmp_path):
    model = toy("gated_grouped")
    state = model.state_dict()
    assert all(value.is_contiguous() for value in state.values())
    save_file(state, tmp_path / "model.safetensors")
    other = toy("gated_grouped", seed=1)
    assert other.load_state_dict(load_file(tmp_path / "model.safetensors")).missing_keys == []
    assert torch.equal(other(TOKENS), model(TOKENS))
    other.load_state_dict(state, assign=True)
    torch.testing.assert_close(other(TOKENS), model(TOKENS))


def test_buffers_of_old_checkpoints_are_dropped_and_other_keys_are_not():
    model = toy("gated_grouped")
    state = model.state_dict()
    for layer in (0, 1):
        for name in ("mask", "IGNORE", "rotary_sin", "rotary_cos"):
            state[f"blocks.{layer}.attn.{name}"] = torch.ones(24, 24)
    toy("gated_grouped", seed=1).load_state_dict(state)
    state["blocks.0.attn.W_Z"] = torch.ones(1)
    with pytest.raises(RuntimeError, match=r"blocks\.0\.attn\.W_Z"):
        model.load_state_dict(state)


# --- copies ------------------------------------------------------------------------------------------------------


def test_a_deepcopy_is_a_model_of_its_own():
    model = toy()
    model.add_hook("blocks.0.hook_mlp_out", lambda a, hook: a * 0)
    twin = copy.deepcopy(model)
    assert hook_count(twin) == 1
    model.reset_hooks()
    assert hook_count(twin) == 1
    assert not torch.allclose(model(TOKENS), twin(TOKENS))
    twin.reset_hooks()
    assert torch.equal(model(TOKENS), twin(TOKENS))
    before = model(TOKENS)
    randomise(twin, seed=5)
    twin.set_use_attn_result(True)
    twin.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.q.hook_out", lambda a, hook: a * 0)], reset_hooks_end=False)
    assert hook_count(model) == 0
    assert torch.equal(model(TOKENS), before)
    assert not model.cfg.use_attn_result


def test_pickling_keeps_everything():
    model = toy("gated_grouped")
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(model(TOKENS), twin(TOKENS))
    _, cache = twin.run_with_cache(TOKENS, names_filter="blocks.0.attn.q.hook_out")
    assert "blocks.0.attn.hook_q" in cache


def test_models_of_one_configuration_do_not_share_it():
    cfg = HookedTransformerConfig(n_layers=1, d_model=8, d_head=4, n_ctx=8, d_vocab=9, device="cpu")
    first, second = HookedTransformer(cfg), HookedTransformer(cfg)
    first.to(torch.bfloat16)
    first.set_use_attn_result(True)
    assert (second.cfg.dtype, second.cfg.use_attn_result) == (torch.float32, False)
    assert (first.cfg.dtype, first.cfg.use_attn_result) == (torch.bfloat16, True)


# --- devices and dtypes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_bfloat16_is_close(kind):
    if kind == "experts":
        pytest.skip("another expert may be chosen")
    model = toy(kind)
    logits = model(TOKENS)
    model.to(torch.bfloat16)
    assert model.cfg.dtype == torch.bfloat16
    narrow = model(TOKENS)
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - logits).abs().max() < 0.05 * logits.abs().max()
    _, cache = model.run_with_cache(TOKENS)
    assert cache["resid_post", -1].dtype == torch.bfloat16


def test_double_precision_stays_double():
    assert toy().to(torch.float64)(TOKENS).dtype == torch.float64


def test_moving():
    model = toy()
    assert model.to("cpu") is model
    assert model.cpu().cfg.device == "cpu"
    assert model.to("cpu", False) is model  # 3.x: (device, print_details)
    assert model.to(device_or_dtype=torch.float64).W_E.dtype == torch.float64
    meta = toy().to("meta")
    assert meta.cfg.device == "meta"
    assert meta.W_E.device.type == "meta"


# --- training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "experts"])
def test_training_lowers_the_loss(kind):
    model = toy(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(TOKENS, return_type="loss")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


def test_adam_does_to_our_layout_what_it_does_to_a_contiguous_weight():
    ours, plain = toy(), toy()
    for block in plain.blocks:
        for name in (*ATTENTION, "W_O"):
            setattr(block.attn, name, nn.Parameter(getattr(block.attn, name).detach().contiguous()))
    for model in (ours, plain):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            model(TOKENS, return_type="loss").backward()
            optimizer.step()
    torch.testing.assert_close(ours(TOKENS), plain(TOKENS), atol=1e-3, rtol=1e-3)


def test_gradients_go_where_they_are_required():
    model = toy()
    model.requires_grad_(False)
    model.blocks[1].mlp.W_in.requires_grad_(True)
    model(TOKENS, return_type="loss").backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["blocks.1.mlp.W_in"]
    assert model.train().training
    assert not model.eval().training


def test_functional_call():
    model, other = toy("gated_grouped"), toy("gated_grouped", seed=3)
    weights = dict(other.named_parameters())
    called = torch.func.functional_call(model, weights, (TOKENS,))
    assert torch.equal(called, other(TOKENS))
    assert not torch.equal(called, model(TOKENS))

    def loss(weights):
        return torch.func.functional_call(model, weights, (TOKENS,), {"return_type": "loss"})

    gradients = torch.func.grad(loss)({name: value.detach() for name, value in weights.items()})
    other(TOKENS, return_type="loss").backward()
    torch.testing.assert_close(gradients["blocks.0.attn._W_K"], other.blocks[0].attn._W_K.grad)


# --- initial weights ---------------------------------------------------------------------------------------------

WIDE = {"n_layers": 1, "d_model": 64, "d_head": 16, "n_ctx": 64, "d_vocab": 100, "device": "cpu", "d_mlp": 128}


@pytest.mark.parametrize(
    ("mode", "scale", "W_Q", "W_O", "W_in", "W_U"),
    [
        ("gpt2", None, 0.8 / 8, 0.8 / 8, 0.8 / 8, 0.8 / 8),
        ("gpt2", 0.02, 0.02, 0.02, 0.02, 0.02),
        ("xavier_normal", None, 64**-0.5, 64**-0.5, 96**-0.5, 82**-0.5),
        ("xavier_uniform", 2.0, 2 * 64**-0.5, 2 * 64**-0.5, 2 * 96**-0.5, 2 * 82**-0.5),
        ("kaiming_normal", None, 64**-0.5, 64**-0.5, 64**-0.5, 64**-0.5),
        ("kaiming_uniform", None, 64**-0.5, 64**-0.5, 64**-0.5, 64**-0.5),
        ("muP", None, 64**-0.5, 64**-0.5, 64**-0.5, 1 / 64),
    ],
)
def test_initial_standard_deviations(mode, scale, W_Q, W_O, W_in, W_U):
    fields = {} if scale is None else {"initializer_range": scale}
    model = HookedTransformer({**WIDE, "init_mode": mode, "seed": 0, **fields})
    for name, wanted in {"W_Q": W_Q, "W_O": W_O, "W_in": W_in, "W_U": W_U}.items():
        values = getattr(model, name)
        assert values.std().item() == pytest.approx(wanted, rel=0.05), name
        assert abs(values.mean().item()) < 0.1 * wanted
        if mode.endswith("uniform"):
            assert values.abs().max() <= wanted * 3**0.5 * 1.01
    assert model.b_Q.abs().sum() == model.b_in.abs().sum() == model.b_U.abs().sum() == 0
    assert torch.equal(model.ln_final.w, torch.ones(64))


def test_a_seed_makes_the_weights_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first = HookedTransformer({**WIDE, "seed": 7})
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(HookedTransformer({**WIDE, "seed": 7}).W_Q, first.W_Q)
    assert not torch.equal(HookedTransformer({**WIDE, "seed": 8}).W_Q, first.W_Q)
    torch.manual_seed(0)
    unseeded = HookedTransformer(WIDE)
    torch.manual_seed(0)
    assert torch.equal(HookedTransformer(WIDE).W_Q, unseeded.W_Q)
    assert not torch.equal(HookedTransformer(WIDE).W_Q, unseeded.W_Q)
