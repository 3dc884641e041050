"""Programs compiled by Tracr, as objects with the fields of its AssembledTransformerModel."""

from types import SimpleNamespace as Of

import numpy as np
import pytest
import torch

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.models.tracr import (
    UnsupportedProgramError,
    infer_tracr_output_label,
    make_tracr_categorical_unembed,
    make_tracr_transformer_bridge_config,
    make_tracr_transformer_bridge_state_dict,
)

REVERSE = [
    "indices:0", "indices:1", "one", "reverse_1:1", "reverse_1:2", "reverse_1:3",
    "tokens:1", "tokens:2", "tokens:3", "tokens:bos", "tokens:pad",
]  # fmt: skip


def compiled(labels=REVERSE, outputs=(1, 2, 3), layer_norm=False, causal=False):
    """Two layers of random weights, of the shapes that Haiku gives them."""
    draw = np.random.default_rng(0).normal
    d_model = len(labels)
    params = {"token_embed": {"embeddings": draw(size=(5, d_model))}}
    params["pos_embed"] = {"embeddings": draw(size=(4, d_model))}
    for layer in range(2):
        for part, (into, out) in {
            **dict.fromkeys(("attn/key", "attn/query", "attn/value"), (d_model, 6)),
            **{"attn/linear": (6, d_model), "mlp/linear_1": (d_model, 7), "mlp/linear_2": (7, d_model)},
        }.items():
            params[f"transformer/layer_{layer}/{part}"] = {"w": draw(size=(into, out)), "b": draw(size=out)}
    sizes = Of(num_heads=2, num_layers=2, key_size=3, mlp_hidden_size=7, layer_norm=layer_norm, causal=causal)
    encoder = Of(encoding_map={value: number for number, value in enumerate(outputs)})
    return Of(params=params, model_config=sizes, residual_labels=list(labels), output_encoder=encoder)


def the_token_before():
    """A program by hand: one head of four dimensions takes each token to the position after it."""
    labels = ["before:1", "before:2", "before:3", *(f"indices:{i}" for i in range(4))]
    labels += ["tokens:1", "tokens:2", "tokens:3", "tokens:bos"]
    at = labels.index
    zeros = np.zeros
    embed, positions = zeros((4, 11)), zeros((4, 11))
    for number, token in enumerate(("1", "2", "3", "bos")):
        embed[number, at(f"tokens:{token}")] = 1
    query, key, value, out = zeros((11, 4)), zeros((11, 4)), zeros((11, 4)), zeros((4, 11))
    for i in range(4):
        positions[i, at(f"indices:{i}")] = key[at(f"indices:{i}"), i] = 1
        query[at(f"indices:{i}"), max(i - 1, 0)] = 100
    for number, token in enumerate("123"):
        value[at(f"tokens:{token}"), number] = out[number, at(f"before:{token}")] = 1
    attention = {"query": query, "key": key, "value": value, "linear": out}
    params = {f"transformer/layer_0/attn/{name}": {"w": w, "b": zeros(w.shape[1])} for name, w in attention.items()}
    params["transformer/layer_0/mlp/linear_1"] = {"w": zeros((11, 1)), "b": zeros(1)}
    params["transformer/layer_0/mlp/linear_2"] = {"w": zeros((1, 11)), "b": zeros(11)}
    params |= {"token_embed": {"embeddings": embed}, "pos_embed": {"embeddings": positions}}
    sizes = Of(num_heads=1, num_layers=1, key_size=4, mlp_hidden_size=1, layer_norm=False, causal=False)
    encoder = Of(encoding_map={1: 0, 2: 1, 3: 2})
    return Of(params=params, model_config=sizes, residual_labels=labels, output_encoder=encoder)


@torch.no_grad()
def test_a_program_does_what_it_says():
    program = the_token_before()
    cfg = make_tracr_transformer_bridge_config(program)
    bridge = TransformerBridge.boot_native(cfg)
    bridge.load_state_dict(make_tracr_transformer_bridge_state_dict(program))
    logits, cache = bridge.run_with_cache(torch.tensor([[3, 1, 2, 0]]))  # bos 2 3 1
    assert logits[0, 2:].argmax(-1).tolist() == [1, 2]  # before 3 stands 2, before 1 stands 3
    assert cache["pattern", 0][0, 0].argmax(-1).tolist() == [0, 0, 1, 2]


def test_the_output_is_found_by_its_values():
    assert infer_tracr_output_label(compiled()) == "reverse_1"
    assert infer_tracr_output_label(compiled(["a:True", "a:False", "one"], (True, False))) == "a"
    assert infer_tracr_output_label(compiled(["a:x:1", "a:x:2", "a:x:3", "one"])) == "a:x"
    with pytest.raises(ValueError, match=r"these have its values: a, b\. Give output_label"):
        infer_tracr_output_label(compiled(["a:1", "a:2", "a:3", "b:1", "b:2", "b:3"]))
    with pytest.raises(ValueError, match="these have its values: none"):
        infer_tracr_output_label(compiled(["a:1", "a:2", "one"]))
    numerical = compiled()
    numerical.output_encoder = Of()
    with pytest.raises(NotImplementedError, match=r"numbers .*only categories are converted"):
        make_tracr_transformer_bridge_config(numerical)


def test_the_unembedding_reads_the_dimensions_of_the_output():
    unembed = make_tracr_categorical_unembed(compiled())
    assert (unembed.shape, unembed.dtype) == ((11, 3), np.float32)
    assert np.argwhere(unembed).tolist() == [[3, 0], [4, 1], [5, 2]]
    assert np.argwhere(make_tracr_categorical_unembed(compiled(), "tokens")).tolist() == [[6, 0], [7, 1], [8, 2]]
    assert np.argwhere(make_tracr_categorical_unembed(compiled(outputs=(3, 2, 1)))).tolist() == [[3, 2], [4, 1], [5, 0]]
    assert make_tracr_categorical_unembed(compiled(), dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match=r"no dimension 'token:1'.*Nearest: tokens:1"):
        make_tracr_categorical_unembed(compiled(), "token")


def test_the_configuration():
    cfg = make_tracr_transformer_bridge_config(compiled())
    found = (cfg.d_model, cfg.d_head, cfg.n_layers, cfg.n_ctx, cfg.n_heads, cfg.d_mlp, cfg.d_vocab, cfg.d_vocab_out)
    assert found == (11, 3, 2, 4, 2, 7, 5, 3)
    assert (cfg.act_fn, cfg.normalization_type, cfg.attention_dir) == ("relu", None, "bidirectional")
    assert make_tracr_transformer_bridge_config(compiled(causal=True)).attention_dir == "causal"


@torch.no_grad()
def test_both_hosts_compute_what_haiku_would():
    program = compiled()
    cfg, state = make_tracr_transformer_bridge_config(program), make_tracr_transformer_bridge_state_dict(program)
    bridge, model = TransformerBridge.boot_native(cfg), HookedTransformer(cfg)
    bridge.load_state_dict(state)
    model.load_state_dict(state)
    tokens = torch.tensor([[3, 0, 1, 2]])
    expected = as_haiku(program, tokens[0].numpy()) @ make_tracr_categorical_unembed(program)
    for host in (bridge, model):
        np.testing.assert_allclose(host(tokens)[0].numpy(), expected, rtol=1e-4, atol=1e-3)


def as_haiku(program, tokens):
    """The stream at the end: bidirectional attention over scores / sqrt(key_size), then an MLP, without norms."""
    params = program.params
    x = params["token_embed"]["embeddings"][tokens] + params["pos_embed"]["embeddings"][: len(tokens)]
    for layer in range(2):
        apply = {name: params[f"transformer/layer_{layer}/{name}"] for name in (
            "attn/query", "attn/key", "attn/value", "attn/linear", "mlp/linear_1", "mlp/linear_2")}  # fmt: skip
        q, k, v = (
            (x @ apply[f"attn/{n}"]["w"] + apply[f"attn/{n}"]["b"]).reshape(-1, 2, 3) for n in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(3)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        z = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v).reshape(-1, 6)
        x = x + z @ apply["attn/linear"]["w"] + apply["attn/linear"]["b"]
        hidden = np.maximum(x @ apply["mlp/linear_1"]["w"] + apply["mlp/linear_1"]["b"], 0)
        x = x + hidden @ apply["mlp/linear_2"]["w"] + apply["mlp/linear_2"]["b"]
    return x


def test_layer_norms_are_refused():
    with pytest.raises(UnsupportedProgramError, match="with layer norms is not converted"):
        make_tracr_transformer_bridge_state_dict(compiled(layer_norm=True))
