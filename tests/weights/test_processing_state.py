"""Weight processing over a state dict: what it takes, what it leaves alone, and in which precision."""

import pytest
import torch

from toys import toy
from transformer_lens.weights import processing
from transformer_lens.weights.matrix_index import WeightsError


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_tensors_are_never_written_to():
    model = toy()
    given = dict(model.state_dict())
    copies = state_of(model)
    processing.process(dict(given), model.cfg, refactor_factored_attn_matrices=True)
    torch.testing.assert_close(given, copies, atol=0, rtol=0)


def test_the_given_state_is_the_one_returned():
    model = toy()
    state = state_of(model)
    result, _ = processing.process(state, model.cfg)
    assert result is state
    assert processing.center_unembed(state, model.cfg) is state


def test_the_configuration_is_copied():
    model = toy()
    _, cfg = processing.process(state_of(model), model.cfg)
    assert (model.cfg.normalization_type, cfg.normalization_type) == ("LN", "LNPre")


def test_steps_one_by_one_are_the_steps_together():
    model = toy()
    together, _ = processing.process(state_of(model), model.cfg, refactor_factored_attn_matrices=True)
    single = state_of(model)
    for step in (
        processing.fold_layer_norm,
        processing.center_writing_weights,
        processing.center_unembed,
        processing.fold_value_biases,
        processing.refactor_factored_attn_matrices,
    ):
        step(single, model.cfg)
    torch.testing.assert_close(single, together)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_rounded_once(dtype):
    model = toy(dtype=dtype)
    exact, _ = processing.process({name: value.float() for name, value in model.state_dict().items()}, model.cfg)
    state, _ = processing.process(state_of(model), model.cfg)
    torch.testing.assert_close(state, {name: value.to(dtype) for name, value in exact.items()}, atol=0, rtol=0)


def test_float64_stays():
    model = toy(dtype=torch.float64)
    state, _ = processing.process(state_of(model), model.cfg)
    assert {value.dtype for value in state.values()} == {torch.float64}
    assert state["unembed.W_U"].mean(1).abs().max() < 1e-15


def test_missing_biases_read_as_zeros_and_are_made():
    model = toy(dtype=torch.bfloat16)
    state = {name: value for name, value in state_of(model).items() if ".b_" not in name}
    zeros = {name: value if ".b_" not in name else value * 0 for name, value in state_of(model).items()}
    processing.process(state, model.cfg)
    processing.process(zeros, model.cfg)
    made = {"attn.b_Q", "attn.b_K", "attn.b_V", "attn.b_O", "mlp.b_in"}
    assert {name.removeprefix("blocks.0.") for name in state if name.startswith("blocks.0.") and ".b_" in name} == made
    assert state["blocks.0.mlp.b_in"].dtype == torch.bfloat16
    for name, value in state.items():
        torch.testing.assert_close(value, zeros[name], atol=0, rtol=0)


def test_a_bias_is_not_lost():
    model = toy()
    with pytest.raises(WeightsError, match=r"fold_biases=False would lose ln1\.b, which is not zero"):
        processing.fold_layer_norm(state_of(model), model.cfg, fold_biases=False)
    state = state_of(model)
    for name in state:
        if name.endswith((".ln1.b", ".ln2.b", "ln_final.b")):
            state[name] = torch.zeros_like(state[name])
    biases = {name: value for name, value in state.items() if ".b_" in name}
    processing.fold_layer_norm(state, model.cfg, fold_biases=False)
    assert all(state[name] is biases[name] for name in biases)


def test_readers_keep_their_mean_on_request():
    model = toy()
    state = processing.fold_layer_norm(state_of(model), model.cfg, center_weights=False)
    raw = model.state_dict()
    wanted = raw["blocks.0.mlp.W_in"] * raw["blocks.0.ln2.w"][:, None]
    torch.testing.assert_close(state["blocks.0.mlp.W_in"], wanted)


def test_only_a_bias_keeps_a_norm_before_a_gated_mlp():
    model = toy(gated_mlp=True)
    state = state_of(model)
    assert "fold_ln" in processing.refusals(state, model.cfg)
    state |= {name: torch.zeros_like(value) for name, value in state.items() if name.endswith("ln2.b")}
    assert "fold_ln" not in processing.refusals(state, model.cfg)


def test_a_norm_inside_a_gated_mlp_stays():
    model = toy(gated_mlp=True, act_fn="solu_ln")
    state = {name: value * 0 if name.endswith("ln2.b") else value for name, value in state_of(model).items()}
    assert "the norm inside a gated MLP" in processing.refusals(state, model.cfg)["fold_ln"]


def test_other_norms_keep_their_weights():
    model = toy("norms_around")
    state = processing.fold_layer_norm(state_of(model), model.cfg)
    left = {name.removeprefix("blocks.0.") for name in state if name.endswith(".w") and "blocks.1" not in name}
    assert left == {"ln1_post.w", "ln2_post.w", "attn.q_norm.w", "attn.k_norm.w", "embed.ln.w"}


def test_shortformer_positions_are_not_in_the_stream():
    model = toy("shortformer")
    state = processing.center_writing_weights(state_of(model), model.cfg)
    assert torch.equal(state["pos_embed.W_pos"], model.W_pos)
    assert state["embed.W_E"].mean(-1).abs().max() < 1e-6
