"""Weight processing on a model: its norms, hooks, memory and state dict afterwards, and what it refuses to load."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from toys import BASE, KINDS, TOKENS, toy
from transformer_lens import HookedTransformer
from transformer_lens.weights.matrix_index import WeightsError
from transformer_lens.weights.processing import ProcessingWarning

TOYS = Path(__file__).parents[1] / "golden" / "toy"
RECORDED = sorted(path.name.split(".")[0] for path in TOYS.glob("*.processed_weights.safetensors"))
QUIET = {"center_writing_weights": False}  # for RMS norms, which cannot have it


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


# --- recorded with transformer-lens 3.9.0 ----------------------------------------------------------------------------


def test_there_are_recordings():
    assert len(RECORDED) >= 4


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_weights_and_logits(name):
    fields = json.loads((TOYS / f"{name}.json").read_text())["handmade"]
    model = HookedTransformer(dict(fields))
    layer_norm = fields["normalization_type"] == "LN"
    model.load_and_process_state_dict(
        load_file(TOYS / f"{name}.weights.safetensors"),
        center_writing_weights=layer_norm,
        center_unembed="output_logits_soft_cap" not in fields,
    )
    torch.testing.assert_close(
        dict(model.state_dict()), load_file(TOYS / f"{name}.processed_weights.safetensors"), atol=2e-5, rtol=0
    )
    logits = load_file(TOYS / f"{name}.processed_logits.safetensors")["logits"]
    tokens = torch.from_numpy(np.load(TOYS / "tokens.npy"))
    torch.testing.assert_close(model(tokens).detach(), logits, atol=2e-5, rtol=0)


# --- norms after folding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "norm_in_mlp"])
def test_folded_norms_read_as_ones_and_zeros(kind):
    model = toy(kind)
    model.process_weights_(center_writing_weights=kind != "gated_grouped")
    norms = {"ln_final": model.ln_final, "ln1": model.blocks[0].ln1, "ln2": model.blocks[1].ln2}
    for norm in norms.values():
        assert torch.equal(norm.w, torch.ones(16))
        assert torch.equal(norm.b, torch.zeros(16))
    if kind == "norm_in_mlp":
        assert model.blocks[0].mlp.ln.w.shape == (20,)
    assert not [name for name in model.state_dict() if "ln" in name]
    assert not [name for name, _ in model.named_parameters() if "ln" in name]


def test_folded_norms_cannot_be_given_weights():
    model = toy()
    model.process_weights_()
    with pytest.raises(KeyError, match="'w' already exists"):
        model.ln_final.w = torch.nn.Parameter(torch.ones(16))


def test_norms_after_attention_and_mlp_stay():
    model = toy("norms_around")
    w = model.blocks[0].ln1_post.w.clone()
    model.process_weights_(center_unembed=False, **QUIET)
    assert torch.equal(model.blocks[0].ln1_post.w, w)
    assert isinstance(model.blocks[0].ln1_post.w, torch.nn.Parameter)


def test_the_configuration_says_so():
    for kind, folded in (("plain", "LNPre"), ("sinks", "RMSPre"), ("attn_only", None)):
        model = toy(kind)
        model.process_weights_(fold_value_biases=False, **QUIET)
        assert model.cfg.normalization_type == folded
        assert model.blocks[0].cfg is model.cfg


def test_the_processed_state_fits_a_model_of_the_processed_configuration():
    for kind in ("plain", "norms_around", "norm_in_mlp", "experts"):
        model = toy(kind)
        model.process_weights_(center_unembed=False, **QUIET)
        fields = {**BASE, **KINDS[kind], "normalization_type": model.cfg.normalization_type}
        fresh = HookedTransformer(fields)
        fresh.load_state_dict(model.state_dict())
        torch.testing.assert_close(fresh(TOKENS), model(TOKENS))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_folded_model(copied):
    model = toy()
    model.process_weights_()
    other = copied(model)
    assert torch.equal(other.ln_final.w, torch.ones(16))
    assert torch.equal(other(TOKENS), model(TOKENS))
    assert other.hook_dict["ln_final.hook_scale"] is other.ln_final.hook_scale is not model.ln_final.hook_scale


def test_folded_norms_follow_the_model():
    model = toy()
    model.process_weights_()
    model.to(torch.bfloat16)
    assert model.ln_final.w.dtype == torch.bfloat16
    model.to("meta")
    assert model.ln_final.b.device.type == "meta"


def test_gradients_still_flow():
    model = toy()
    model.process_weights_()
    model(TOKENS, return_type="loss").backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())


# --- hooks -----------------------------------------------------------------------------------------------------------


def test_hooks_survive():
    model = toy()
    points = dict(model.hook_dict)
    seen = []
    model.add_hook("blocks.0.ln1.hook_normalized", lambda x, hook: seen.append((hook.name, x)))
    model.process_weights_()
    assert dict(model.hook_dict) == points
    model(TOKENS)
    assert [name for name, _ in seen] == ["blocks.0.ln1.hook_normalized"]
    assert model.mod_dict["blocks.0.ln1"] is model.blocks[0].ln1


def test_activations_are_the_raw_ones_centred():
    raw, model = toy(), toy()
    model.process_weights_()
    _, before = raw.run_with_cache(TOKENS)
    _, after = model.run_with_cache(TOKENS)
    for name in ("blocks.1.hook_resid_post", "blocks.0.hook_mlp_out"):
        centred = before[name] - before[name].mean(-1, keepdim=True)
        torch.testing.assert_close(after[name], centred, atol=1e-5, rtol=0)
    for name in ("blocks.1.attn.hook_pattern", "blocks.0.mlp.hook_post", "ln_final.hook_scale"):
        torch.testing.assert_close(after[name], before[name], atol=1e-5, rtol=0)


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "gated_grouped"])
def test_parameters_keep_identity_and_layout(kind):
    model = toy(kind)
    layouts = {name: (id(p), p.stride()) for name, p in model.named_parameters()}
    model.process_weights_(refactor_factored_attn_matrices=kind == "plain", center_writing_weights=kind == "plain")
    for name, parameter in model.named_parameters():
        assert (id(parameter), parameter.stride()) == layouts[name]


def test_shared_memory_is_left_alone():
    # Tied embeddings, or a transformers model whose memory is used: neither may see the processed values.
    model = toy()
    outside = torch.randn(31, 16)
    model.embed.W_E.data, model.unembed.W_U.data = outside, outside.T
    before, wanted = outside.clone(), model(TOKENS).log_softmax(-1)
    model.process_weights_()
    assert torch.equal(outside, before)
    torch.testing.assert_close(model(TOKENS).log_softmax(-1), wanted, atol=1e-5, rtol=0)


def test_a_loaded_state_is_not_the_models():
    weights = state_of(toy(seed=1))
    copies = {name: value.clone() for name, value in weights.items()}
    model = toy()
    model.load_and_process_state_dict(weights, fold_ln=False, center_unembed=False, fold_value_biases=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(weights[name], copies[name]) for name in weights)


# --- loading ---------------------------------------------------------------------------------------------------------


def test_loading_without_a_step_is_loading():
    weights = state_of(toy("gated_grouped", seed=1))
    model = toy("gated_grouped")
    model.load_and_process_state_dict(weights, False, False, False, False)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_raw_weights_into_a_model_whose_norms_have_none():
    raw, model = toy(), toy(normalization_type="LNPre")
    model.load_and_process_state_dict(raw.state_dict())
    torch.testing.assert_close(model(TOKENS).log_softmax(-1), raw(TOKENS).log_softmax(-1), atol=1e-5, rtol=0)
    with pytest.raises(WeightsError, match=r"has blocks\.0\.ln1\.w, .* cannot be folded: fold_ln=False"):
        model.load_and_process_state_dict(raw.state_dict(), fold_ln=False)


def test_processed_weights_into_a_model_whose_norms_have_some():
    processed, model = toy(), toy(seed=3)
    processed.process_weights_()
    model.load_and_process_state_dict(processed.state_dict())
    torch.testing.assert_close(model(TOKENS), processed(TOKENS), atol=1e-5, rtol=0)


def test_old_buffers_are_dropped():
    raw, model = toy("gated_grouped"), toy("gated_grouped", seed=1)
    old = {
        "blocks.0.attn.mask": torch.ones(2, 2),
        "blocks.0.attn.IGNORE": torch.tensor(0.0),
        "pos_embed.W_pos": torch.ones(2),
    }
    model.load_and_process_state_dict(raw.state_dict() | old, **QUIET)
    torch.testing.assert_close(model(TOKENS).log_softmax(-1), raw(TOKENS).log_softmax(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("blocks.0.attn.W_X", torch.ones(1), r"has blocks\.0\.attn\.W_X, and this model does not\. Nearest: .*W_Q"),
        ("unembed.W_U", torch.ones(3, 4), r"unembed\.W_U has shape \(3, 4\) in the state dict and \(16, 31\) in this"),
    ],
)
def test_weights_that_do_not_fit(name, value, message):
    model = toy()
    before = state_of(model)
    with pytest.raises(WeightsError, match=message):
        model.load_and_process_state_dict({**state_of(toy(seed=1)), name: value})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.cfg.normalization_type == "LN"


def test_missing_keys():
    model = toy()
    weights = state_of(model)
    dropped = ["blocks.0.attn.b_Q", "blocks.1.ln1.w", "blocks.1.ln1.b", "unembed.b_U"]
    filled = model.fill_missing_keys({name: value for name, value in weights.items() if name not in dropped})
    assert filled.keys() == weights.keys()
    assert [filled[name].unique().item() for name in dropped] == [0, 1, 0, 0]
    with pytest.warns(UserWarning, match=r"The state dict lacks embed\.W_E, unembed\.W_U: this model's own values"):
        filled = model.fill_missing_keys(
            {name: value for name, value in weights.items() if name not in ("embed.W_E", "unembed.W_U")}
        )
    assert torch.equal(filled["embed.W_E"], weights["embed.W_E"])


def test_learned_activations_are_loaded():
    raw, model = toy(act_fn="xielu"), toy(act_fn="xielu", seed=1)
    raw.blocks[0].mlp.act_fn.beta.fill_(0.7)
    model.load_and_process_state_dict(raw.state_dict())
    assert torch.equal(model.blocks[0].mlp.act_fn.alpha_p, raw.blocks[0].mlp.act_fn.alpha_p)
    torch.testing.assert_close(model(TOKENS).log_softmax(-1), raw(TOKENS).log_softmax(-1), atol=1e-5, rtol=0)


# --- single steps ----------------------------------------------------------------------------------------------------


def test_single_steps_return_state_dicts():
    model = toy()
    state = state_of(model)
    for step in ("fold_layer_norm", "center_writing_weights", "center_unembed", "fold_value_biases"):
        before = dict(state)
        result = getattr(model, step)(state)
        assert state.keys() == before.keys()
        assert all(state[name] is before[name] for name in state)
        state = result
    state = model.refactor_factored_attn_matrices(state)
    fresh = toy(normalization_type="LNPre")
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh(TOKENS).log_softmax(-1), model(TOKENS).log_softmax(-1), atol=1e-5, rtol=0)


def test_a_refusal_names_the_step():
    with pytest.warns(ProcessingWarning, match="fold_value_biases is left out: attention sinks take a share of each"):
        toy("sinks").process_weights_(center_writing_weights=False)
