"""The resolver finds in every family with a spec what the spec says, though it never reads one."""

import pytest
import torch
from census.tiny import tiny_model
from tests.models.families import ROWS, hf_model
from transformers import AutoModelForImageTextToText, BertConfig, BertForMaskedLM

from transformer_lens import TransformerBridge
from transformer_lens.models.bridge_boot import anatomy_of
from transformer_lens.specs import UnsupportedModelError
from transformer_lens.wrapped.anatomy import SpecAnatomy, Weights
from transformer_lens.wrapped.resolver import resolve

# What a spec knows and looking cannot tell: rotation without a module for it, and CodeGen's interleaving.
NOT_SEEN = {
    "gptj": {"attn.inner"},
    "codegen": {"attn.inner", "attn.inputs", "attn.norm_before", "attn.q", "attn.k", "attn.v"},
    "xglm": {"attn.inner", "pos_embed"},
}
UNKNOWN_WEIGHTS = ("expert", "mlp.W_gate.", "act_fn", "attn.sinks", "mlp.shared.", "mlp.W_shared")
ATTENTION = ("heads", "key_heads", "inner", "sinks", "inputs", "norm_before", "times", "has_result")


def columns(projection):
    return None if projection is None or projection.columns is None else projection.columns.index.tolist()


def parts(places):
    """What a layer's places say, flat, without the names of nested modules whose outputs are the same tensor."""
    attn, mlp = places.attn, places.mlp
    said = {f"attn.{name}": getattr(attn, name) for name in ATTENTION}
    said |= {f"attn.{x}": (read.path, columns(read)) for x, read in attn.reads.items()}
    said |= {"attn.z": (attn.z.path, columns(attn.z))}
    said |= {f"attn.{name}": norm.path for name, norm in attn.norms.items()}
    said |= {name: (norm.path, norm.centers, norm.eps) for name, norm in places.norms.items()}
    said |= {f"middle {name}": (middle.base, middle.times) for name, middle in places.middle.items()}
    said |= {f"mlp.{x}": (read.path, columns(read)) for x, read in mlp.reads.items()}
    said |= {f"mlp.{name}": getattr(mlp, name) for name in ("path", "down", "times", "router", "shared")}
    return said | {"path": places.path, "branch": places.branch, "one_norm": places.one_norm}


def ends(places):
    norms = {name: None if norm is None else norm.path
             for name, norm in (("embed_norm", places.embed_norm), ("final_norm", places.final_norm))}  # fmt: skip
    return norms | {name: getattr(places, name) for name in ("embed", "embed_times", "pos_embed", "unembed")}


@pytest.mark.parametrize("row", ROWS)
def test_what_is_found_is_what_the_spec_says(row):
    model = hf_model(row)
    spec, found = anatomy_of(model, "by spec"), resolve(model, "by looking")
    assert isinstance(spec, SpecAnatomy)
    assert found.cfg.n_layers == spec.cfg.n_layers
    wrong = {}
    for layer in range(spec.cfg.n_layers):
        wanted, seen = parts(spec.layer(layer)), parts(found.layer(layer))
        wrong |= {name: (wanted.get(name), seen.get(name)) for name in wanted.keys() | seen.keys()
                  if wanted.get(name) != seen.get(name)}  # fmt: skip
    wanted, seen = ends(spec.ends), ends(found.ends)
    wrong |= {name: (wanted[name], seen[name]) for name in wanted if wanted[name] != seen[name]}
    assert wrong.keys() - NOT_SEEN.get(row, set()) == set(), wrong
    assert found.cfg.output_logits_soft_cap == spec.cfg.output_logits_soft_cap
    assert found.ends.rotary in (None, spec.ends.rotary)


@pytest.mark.parametrize("row", ROWS)
@torch.no_grad()
def test_weights_that_are_found_are_those_of_the_spec(row):
    model = hf_model(row)
    spec, found = anatomy_of(model, "by spec"), resolve(model, "by looking")
    wanted, seen = Weights(spec, model), Weights(found, model)
    missing = []
    for ours in spec.rules:
        if any(word in ours for word in UNKNOWN_WEIGHTS):
            continue
        if found.rule(ours, 1) is None:
            missing.append(ours)
        else:
            torch.testing.assert_close(seen.read(ours, 1), wanted.read(ours, 1), rtol=1e-5, atol=1e-6)
    assert not missing or row == "codegen"


def test_layers_may_be_of_different_kinds():
    found = resolve(tiny_model("jamba"), "jamba")
    kinds = [{part for part in ("attn", "mixer", "mlp") if getattr(found.layer(layer), part)} for layer in range(2)]
    assert kinds == [{"mixer", "mlp"}, {"attn", "mlp"}]
    assert found.rule("blocks.{layer}.attn.W_Q", 1) is not None
    assert found.rule("blocks.{layer}.attn.W_Q", 0) is None


def test_latent_attention_has_its_own_modules_and_no_w_q():
    found = resolve(tiny_model("deepseek_v3"), "deepseek_v3")
    attn = found.layer(0).attn
    assert not attn.reads
    assert {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"} <= attn.others.keys()
    assert found.rule("blocks.{layer}.attn.W_Q", 0) is None
    assert found.rule("blocks.{layer}.attn.W_O", 0) is not None


def test_norms_that_stand_in_the_stream_are_told_from_those_before_a_part():
    assert resolve(tiny_model("bert"), "bert").layer(0).in_stream == {"ln1", "ln2"}
    assert resolve(tiny_model("gpt2"), "gpt2").layer(0).in_stream == set()


def test_the_model_is_as_before_afterwards():
    model = tiny_model("bert").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    implementation = model.config._attn_implementation
    resolve(model, "bert")
    assert model.training
    assert model.config._attn_implementation == implementation
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_unembedding_that_does_not_read_the_stream_is_no_w_u():
    found = resolve(tiny_model("rembert"), "rembert")
    assert found.ends.unembed is not None
    assert found.rule("unembed.W_U") is None


def test_a_model_without_a_stack_of_layers_is_refused():
    from transformers import ResNetConfig, ResNetForImageClassification

    model = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]))
    with pytest.raises(UnsupportedModelError, match="takes no token ids"):
        resolve(model, "resnet")


def test_a_model_that_needs_more_than_token_ids_is_refused_and_the_one_inside_it_is_not():
    model = tiny_model("blip-2", AutoModelForImageTextToText)
    with pytest.raises(UnsupportedModelError, match=r"needs pixel_values too.* wrap the language model inside it"):
        resolve(model, "blip-2")
    inside = TransformerBridge.boot_transformers(hf_model=model.language_model)
    assert inside(torch.tensor([[3, 4, 5]])).shape[:2] == (1, 3)


def test_a_vocabulary_of_a_few_tokens_is_enough():
    config = BertConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    bridge = TransformerBridge.boot_transformers(hf_model=BertForMaskedLM(config).eval())
    assert bridge.layer_types() == ["attn+mlp"]
