"""HookedEncoder: transformers' numbers, recorded activations, and hooks that act."""

import copy
from pathlib import Path

import berts
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transformer_lens import (
    ActivationCache,
    BertNextSentencePrediction,
    HookedEncoder,
    HookedTransformerConfig,
    TransformerBridge,
)
from transformer_lens.cache.errors import UndefinedDecompositionError
from transformer_lens.errors import ConfigurationError, TransformerLensError, UnknownNameError

GOLDEN = Path(__file__).parent.parent / "golden" / "encoders" / "bert"
TOKENS, MASK, TYPES = berts.TOKENS, berts.MASK, berts.TYPES
GIVEN = {"token_type_ids": TYPES, "one_zero_attention_mask": MASK}


def encoder(kind="BertForPreTraining", **fields):
    return HookedEncoder.from_pretrained("x", hf_model=berts.bert(kind, **fields), device="cpu")


@pytest.fixture(scope="module")
def model():
    return encoder()


def distance(a, b):
    assert a.shape == b.shape
    return (a.double() - b.double()).nan_to_num(0, 0, 0).abs().amax().item()


# --- recorded -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded():
    return HookedEncoder.from_pretrained(GOLDEN, device="cpu"), torch.from_numpy(np.load(GOLDEN / "tokens.npy"))


@torch.no_grad()
def test_every_activation_is_as_recorded(recorded):
    model, tokens = recorded
    raw = load_file(GOLDEN / "ht_raw.safetensors")
    logits, cache = model.run_with_cache(tokens)
    assert distance(logits, raw.pop("logits")) < 2e-5
    assert distance(logits, load_file(GOLDEN / "hf_logits.safetensors")["hf_logits"]) < 2e-5
    assert set(cache) == set(raw)
    wrong = {name: distance(cache[name], value) for name, value in raw.items()}
    assert max(wrong.values()) < 2e-5, wrong


@torch.no_grad()
def test_masked_and_typed_runs_are_as_recorded(recorded):
    model, tokens = recorded
    extra = load_file(GOLDEN / "ht_raw_extra.safetensors")
    mask = torch.ones_like(tokens)
    mask[1, -3:] = 0
    masked = model(tokens, one_zero_attention_mask=mask)
    assert distance(masked, extra["logits_one_zero_mask_row1_last3_zero"]) < 2e-5
    assert distance(masked, extra["hf_logits_same_mask"]) < 2e-5  # padding positions too
    types = torch.tensor([[0] * 5 + [1] * 6] * 2)
    assert distance(model(tokens, token_type_ids=types), extra["logits_token_type_[0]*5+[1]*6"]) < 2e-5
    nsp = load_file(GOLDEN / "nsp.safetensors")
    logits = BertNextSentencePrediction(model)(tokens, token_type_ids=types)
    assert distance(logits, nsp["ht_nsp_logits"]) < 1e-5
    assert distance(logits, nsp["hf_nsp_logits"]) < 1e-5


# --- transformers' numbers ------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)], ids=["batch 1", "batch 3"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"hidden_act": "relu"}, {"tie_word_embeddings": False}, {"layer_norm_eps": 1e-2, "num_attention_heads": 4}],
    ids=str,
)
def test_all_heads_give_transformers_numbers(rows, fields):
    hf = berts.bert(**fields)
    model = HookedEncoder.from_pretrained("x", hf_model=hf, device="cpu")
    tokens, mask, types = TOKENS[rows], MASK[rows], TYPES[rows]
    wanted = hf(tokens, attention_mask=mask, token_type_ids=types, output_hidden_states=True)
    logits, cache = model.run_with_cache(tokens, token_type_ids=types, one_zero_attention_mask=mask)
    assert distance(logits, wanted.prediction_logits) < 1e-5
    assert distance(model.encoder_output(tokens, types, mask), wanted.hidden_states[-1]) < 1e-5
    assert distance(BertNextSentencePrediction(model)(tokens, "logits", types, mask), wanted[1]) < 1e-5
    streams = [cache["hook_full_embed"], *(cache["normalized_resid_post", layer] for layer in range(2))]
    assert max(map(distance, streams, wanted.hidden_states)) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "heads"),
    [
        ("BertForMaskedLM", {"mlm_head"}),
        ("BertForNextSentencePrediction", {"pooler", "nsp_head"}),
        ("BertModel", {"pooler"}),
    ],
)
def test_a_checkpoint_without_some_heads(kind, heads):
    hf, model = berts.bert(kind), encoder(kind)
    assert {name for name in ("mlm_head", "pooler", "nsp_head") if getattr(model, name) is not None} == heads
    wanted = hf(TOKENS, attention_mask=MASK, token_type_ids=TYPES, output_hidden_states=True)
    assert distance(model.encoder_output(TOKENS, **GIVEN), wanted.hidden_states[-1]) < 1e-5
    nsp = BertNextSentencePrediction(model)
    if "mlm_head" in heads:
        assert distance(model(TOKENS, **GIVEN), wanted.logits) < 1e-5
    else:
        assert model(TOKENS, return_type=None) is None
        for ask in (lambda: model(TOKENS), lambda: model.W_U, lambda: model.b_U):
            with pytest.raises(TransformerLensError, match=r"no head for masked tokens.*encoder_output"):
                ask()
    if "nsp_head" in heads:
        assert distance(nsp(TOKENS, **GIVEN), wanted.logits) < 1e-5
    else:
        with pytest.raises(TransformerLensError, match=r"has no (pooler|head for next sentences)"):
            nsp(TOKENS, **GIVEN)


@torch.no_grad()
def test_padding_changes_nothing(model):
    alone = model(TOKENS[1:2, :5], token_type_ids=TYPES[1:2, :5])
    assert distance(model(TOKENS, **GIVEN)[1:2, :5], alone) < 1e-5
    assert distance(model(TOKENS, token_type_ids=TYPES)[1:2, :5], alone) > 1e-3  # ids alone are all tokens
    nothing = torch.zeros_like(MASK)
    looked_at, cache = model.run_with_cache(TOKENS, one_zero_attention_mask=nothing)
    assert cache["pattern", 1].isfinite().all()
    assert distance(model(TOKENS, one_zero_attention_mask=nothing), looked_at) < 1e-5


@torch.no_grad()
def test_numbers_are_the_same_while_everything_is_looked_at(model):
    names = [name for name in model.hook_dict if not name.endswith("hook_attn_in")]
    seen, cache = model.run_with_cache(TOKENS, names_filter=names, **GIVEN)
    assert distance(seen, model(TOKENS, **GIVEN)) < 1e-5
    assert set(cache) == set(model.hook_dict) - {
        *("pooler.hook_pooler_out", "nsp_head.hook_nsp_out"),
        *(f"blocks.{layer}.hook_attn_in" for layer in range(2)),
    }


# --- hooks ----------------------------------------------------------------------------------------------------------

FLAGGED = ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in", "attn.hook_result")
POINTS = [
    *("embed.hook_embed", "embed.hook_pos_embed", "embed.hook_token_type_embed", "embed.ln.hook_scale"),
    *("embed.ln.hook_normalized", "hook_full_embed", "mlm_head.ln.hook_scale", "mlm_head.ln.hook_normalized"),
    *("unembed.hook_in", "unembed.hook_out"),
    *(f"blocks.1.{name}" for name in (
        *("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post"),
        *("hook_normalized_resid_post", "ln1.hook_scale", "ln1.hook_normalized", "ln2.hook_scale"),
        *("ln2.hook_normalized", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_attn_scores"),
        *("attn.hook_pattern", "attn.hook_z", "mlp.hook_pre", "mlp.hook_post", *FLAGGED),
    )),
]  # fmt: skip


def test_the_list_of_points_is_complete(model):
    assert {name for name in model.hook_dict if "blocks.0" not in name} == {
        *POINTS, "pooler.hook_pooler_out", "nsp_head.hook_nsp_out",
    }  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("point", POINTS)
def test_an_edit_moves_the_logits(model, point):
    def twist(activation, hook):
        activation[:, -1] = activation[:, -1] * 1.5 + 0.3 * torch.arange(activation.shape[-1])

    before = model(TOKENS)
    assert distance(model.run_with_hooks(TOKENS, fwd_hooks=[(point, twist)]), before) > 1e-3
    assert distance(model.run_with_hooks(TOKENS, fwd_hooks=[(point, lambda x, hook: x)]), before) < 1e-5
    assert torch.equal(model(TOKENS), before)


@torch.no_grad()
@pytest.mark.parametrize("point", ["pooler.hook_pooler_out", "nsp_head.hook_nsp_out", "blocks.0.attn.hook_z"])
def test_an_edit_moves_the_answer_about_sentences(model, point):
    nsp = BertNextSentencePrediction(model)
    edited = nsp.run_with_hooks(TOKENS, token_type_ids=TYPES, fwd_hooks=[(point, lambda x, hook: x + 1 + x.abs())])
    assert distance(edited, nsp(TOKENS, token_type_ids=TYPES)) > 1e-3


@torch.no_grad()
def test_parts_add_up_and_norms_follow_the_sums(model):
    names = ["hook_full_embed", *(name for name in model.hook_dict if ".hook_" in name)]
    names = [name for name in names if not name.endswith("hook_attn_in") and "nsp" not in name and "pooler" not in name]
    _, cache = model.run_with_cache(TOKENS, names_filter=names, **GIVEN)
    parts = [cache[f"embed.hook_{part}"] for part in ("embed", "pos_embed", "token_type_embed")]
    assert distance(model.embed.ln(sum(parts)), cache["hook_full_embed"]) < 1e-5
    for layer, block in enumerate(model.blocks):
        assert torch.equal(cache["resid_pre", layer] + cache["attn_out", layer], cache["resid_mid", layer])
        between = block.ln1(cache["resid_mid", layer])
        assert distance(between, cache["mlp_in", layer]) < 1e-5
        assert distance(between + cache["mlp_out", layer], cache["resid_post", layer]) < 1e-5
        assert distance(block.ln2(cache["resid_post", layer]), cache["normalized_resid_post", layer]) < 1e-5
        heads = cache["result", layer].sum(2) + block.attn.b_O
        assert distance(heads, cache["attn_out", layer]) < 1e-5
        assert (cache["attn_scores", layer] == -torch.inf).sum() == 4 * 7 * 2 * 1 + 2 * 7 * 2 * 1


@torch.no_grad()
def test_an_edit_of_the_mlp_input_leaves_the_skip_alone(model):
    hooks = [("blocks.0.hook_mlp_in", lambda x, hook: 0 * x)]
    with model.hooks(hooks):
        _, cache = model.run_with_cache(TOKENS, names_filter=lambda name: "blocks.0" in name)
    between = model.blocks[0].ln1(cache["resid_mid", 0])
    assert distance(cache["resid_post", 0] - cache["mlp_out", 0], between) < 1e-5


@torch.no_grad()
def test_the_bridges_names_mean_the_same_places(tmp_path):
    hf = berts.bert("BertForMaskedLM")
    model = HookedEncoder.from_pretrained("x", hf_model=hf, device="cpu")
    bridge = TransformerBridge.boot_transformers("x", hf_model=copy.deepcopy(hf), device="cpu")
    _, theirs = bridge.run_with_cache(TOKENS)
    _, ours = model.run_with_cache(TOKENS)
    shared = [alias for alias, name in model.hook_dict.aliases.items() if alias in theirs.cache_dict and name in ours]
    assert len(shared) == 30
    wrong = {alias: distance(ours[alias], theirs[alias].expand_as(ours[alias])) for alias in shared}
    assert max(wrong.values()) < 1e-5, wrong


def test_gradients_reach_hooks_and_weights(model):
    seen = []
    with model.hooks(bwd_hooks=[("blocks.0.hook_resid_mid", lambda gradient, hook: seen.append(gradient.shape))]):
        model(TOKENS)[0, 1, 5].backward()
    assert seen == [(3, 7, 16)]
    assert model.embed.token_type_embed.W_token_type.grad.abs().max() > 0
    model.zero_grad()


@torch.no_grad()
@pytest.mark.parametrize(
    ("looked_at", "ran"),
    [
        (None, 0),
        ("hook_full_embed", 0),
        ("blocks.0.hook_resid_mid", 1),
        ("blocks.1.attn.hook_q", 2),
        ("unembed.hook_in", 3),
    ],
)
def test_a_run_without_a_result_ends_after_what_is_looked_at(looked_at, ran):
    model, steps = encoder(), []
    for part in (*(block.mlp for block in model.blocks), model.mlm_head):
        part.act_fn = lambda x: steps.append(1) or torch.nn.functional.gelu(x)
    if looked_at is None:
        assert model(TOKENS, return_type=None) is None
    else:
        nothing, cache = model.run_with_cache(TOKENS, return_type=None, names_filter=looked_at)
        assert nothing is None
        assert list(cache) == [looked_at]
    assert len(steps) == ran


def test_a_cache_says_that_the_stream_is_no_sum(model):
    _, cache = model.run_with_cache(TOKENS)
    with pytest.raises(UndefinedDecompositionError, match=r"normalises its stream after each sum.*attn.hook_result"):
        cache.decompose_resid()


def test_a_cache_is_saved_without_a_readout(model, tmp_path):
    _, cache = model.run_with_cache(TOKENS)
    cache.save(tmp_path / "cache.safetensors")
    again = ActivationCache.load(tmp_path / "cache.safetensors")
    assert set(again) == set(cache)
    assert torch.equal(again["blocks.0.ln1.hook_in"], cache["resid_mid", 0])  # the bridge's name


def test_slices_know_which_activations_have_positions(model):
    nsp = BertNextSentencePrediction(model)
    logits, cache = nsp.run_with_cache(TOKENS, token_type_ids=TYPES, pos_slice=0, names_filter=lambda name: True)
    assert cache["pooler.hook_pooler_out"].shape == (3, 16)
    assert cache["nsp_head.hook_nsp_out"].shape == (3, 2)
    assert cache["hook_full_embed"].shape == (3, 1, 16)
    assert torch.equal(cache["nsp_head.hook_nsp_out"], logits)
    _, alone = nsp.run_with_cache(TOKENS[:1], token_type_ids=TYPES[:1], remove_batch_dim=True)
    assert alone["pooler.hook_pooler_out"].shape == (16,)


# --- weights and places ---------------------------------------------------------------------------------------------


def test_stacked_weights(model):
    assert model.W_E_pos.shape == (31 + 12, 16)
    assert torch.equal(model.W_E_pos[31:], model.embed.pos_embed.W_pos)
    shapes = {"W_Q": (2, 2, 16, 8), "W_O": (2, 2, 8, 16), "W_in": (2, 16, 24), "W_out": (2, 24, 16), "b_Q": (2, 2, 8),
              "b_O": (2, 16), "b_in": (2, 24), "b_out": (2, 16), "W_U": (16, 31), "b_U": (31,)}  # fmt: skip
    assert {name: tuple(getattr(model, name).shape) for name in shapes} == shapes
    hf = berts.bert()
    query = hf.bert.encoder.layer[1].attention.self.query.weight
    assert torch.equal(model.W_Q[1].permute(0, 2, 1).reshape(16, 16), query)
    torch.testing.assert_close(model.QK[1, 0].AB, model.W_Q[1, 0] @ model.W_K[1, 0].T)
    torch.testing.assert_close(model.OV[1, 0].AB, model.W_V[1, 0] @ model.W_O[1, 0])
    assert model.all_head_labels() == ["L0H0", "L0H1", "L1H0", "L1H1"]


def test_memory_is_shared_with_the_given_model():
    hf = berts.bert()
    model = HookedEncoder.from_pretrained("x", hf_model=hf, device="cpu")
    theirs = {parameter.data_ptr() for parameter in hf.parameters()}
    assert {parameter.data_ptr() for parameter in model.parameters()} <= theirs


def test_moving_and_casting():
    model = encoder()
    assert model.to(torch.float64) is model
    assert (model.cfg.dtype, model.cpu().cfg.device) == (torch.float64, "cpu")
    assert model(TOKENS, **GIVEN).dtype == torch.float64
    half = HookedEncoder.from_pretrained("x", hf_model=berts.bert(), device="cpu", dtype="bfloat16")
    assert half.W_Q.dtype == torch.bfloat16
    logits = half(TOKENS, **GIVEN)
    assert logits.dtype == torch.bfloat16
    assert distance(logits, encoder()(TOKENS, **GIVEN)) < 0.5


def test_a_copy_is_a_model_of_its_own(model):
    again = copy.deepcopy(model)
    before = model(TOKENS)
    assert torch.equal(again(TOKENS), before)
    again.blocks[0].attn.W_Q.data.zero_()
    assert torch.equal(model(TOKENS), before)


def test_state_dicts_of_earlier_versions_load(model):
    state = model.state_dict()
    assert all(value.is_contiguous() for value in state.values())
    state |= {f"blocks.{layer}.attn.{name}": torch.zeros(()) for layer in range(2) for name in ("mask", "IGNORE")}
    fresh = HookedEncoder({**berts.OURS, "seed": 1})
    assert distance(fresh(TOKENS), model(TOKENS)) > 0.1
    fresh.load_state_dict(state)
    assert distance(fresh(TOKENS, **GIVEN), model(TOKENS, **GIVEN)) < 1e-6


# --- made from a configuration --------------------------------------------------------------------------------------


def test_made_from_a_configuration_or_a_dict():
    one, two = HookedEncoder(HookedTransformerConfig(**berts.OURS, seed=3)), HookedEncoder({**berts.OURS, "seed": 3})
    assert torch.equal(one(TOKENS), two(TOKENS))
    assert not torch.equal(one(TOKENS), HookedEncoder({**berts.OURS, "seed": 4})(TOKENS))
    assert one.mlm_head.W.abs().max() > 0
    assert one.embed.token_type_embed.W_token_type.abs().max() > 0
    named = HookedEncoder({**berts.OURS, "d_vocab": -1}, tokenizer=berts.tokenizer())
    assert named.cfg.d_vocab == len(berts.WORDS)


def test_attention_is_in_both_directions_or_causal_as_the_configuration_says():
    other = TOKENS.clone()
    other[:, -1] = 7
    for direction, moves in (("bidirectional", True), ("causal", False)):
        model = HookedEncoder({**berts.OURS, "attention_dir": direction, "seed": 0})
        assert (distance(model(TOKENS)[:, :1], model(other)[:, :1]) > 1e-6) is moves


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalization_type": "RMS"}, "normalization_type='RMS' has no effect in an encoder"),
        ({"normalization_type": "LNPre"}, "normalization_type='LNPre' has no effect"),
        ({"positional_embedding_type": "rotary"}, "positional_embedding_type='rotary' has no effect"),
        ({"parallel_attn_mlp": True}, "parallel_attn_mlp=True has no effect"),
        ({"d_vocab": -1}, "d_vocab is missing"),
        ({"d_modell": 3}, "has no field 'd_modell'. Nearest: d_model"),
    ],
)
def test_fields_that_would_be_ignored(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        HookedEncoder({**berts.OURS, **fields})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input": TOKENS, "return_type": "loss"}, "return_type of the mlm head is one of 'logits', 'predictions'"),
        ({"input": TOKENS, "head": "cls"}, 'head is "mlm" or "nsp"; got .cls.'),
        ({"input": TOKENS, "return_type": "predictions", "head": "nsp"}, "of the nsp head is one of 'logits', None"),
        ({"input": torch.zeros(1, 13, dtype=torch.long)}, "13 tokens exceed this model's context of n_ctx=12"),
        ({"input": torch.zeros(1, 3, 16)}, r"shape \[batch, pos\] or \[pos\]; got \(1, 3, 16\), torch.float32"),
        ({"input": TOKENS, "token_type_ids": TYPES[:, :3]}, r"token_type_ids has shape \(3, 3\)"),
        ({"input": TOKENS, "one_zero_attention_mask": MASK[:1]}, r"one_zero_attention_mask has shape \(1, 7\)"),
    ],
)
def test_inputs_that_do_not_fit(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_an_unknown_hook(model):
    with pytest.raises(UnknownNameError, match=r"Nearest: blocks\.0.hook_resid_mid"):
        model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.hook_resid_mdi", lambda x, hook: x)])


def test_rows_and_ids_without_a_batch(model):
    assert distance(model(TOKENS[1]), model(TOKENS[1:2])) < 1e-6
    masked = model(TOKENS[1:2], one_zero_attention_mask=MASK[1:2])
    assert distance(model(TOKENS[1], one_zero_attention_mask=MASK[1]), masked) < 1e-6
