"""Single matrices folded and centred: what they give with a norm stays, and whole models are processed likewise."""

import pytest
import torch

from transformer_lens import HookedTransformer
from transformer_lens.weights.processing.process_weights import ProcessWeights


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("heads", [(), (3,)])
def test_what_reads_the_norm_gives_the_same(heads):
    normed = torch.nn.functional.layer_norm(drawn(5, 8, seed=0), (8,))
    matrix, bias = drawn(*heads, 8, 4, seed=1), drawn(*heads, 4, seed=2)
    weight, ln_bias = drawn(8, seed=3), drawn(8, seed=4)
    expected = (normed * weight + ln_bias) @ matrix + bias[..., None, :]
    folded = ProcessWeights.fold_layer_norm_weight_single(matrix, weight)
    moved = ProcessWeights.fold_layer_norm_bias_single(matrix, bias, ln_bias)
    for reading in (folded, ProcessWeights.center_weight_single(folded)):
        torch.testing.assert_close(normed @ reading + moved[..., None, :], expected)
    assert ProcessWeights.center_weight_single(folded).mean(-2).abs().max() < 1e-12


def test_attention_is_folded_as_whole_models_are():
    cfg = {"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20, "attn_only": True}
    model = HookedTransformer({**cfg, "normalization_type": "LN"})
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=seed))
    state = model.state_dict()
    whole = ProcessWeights.fold_layer_norm(state, model.cfg)
    names = [f"blocks.0.attn.W_{part}" for part in "QKV"]
    matrices, biases = [state[name] for name in names], [state[name.replace("W_", "b_")] for name in names]
    moved = ProcessWeights.fold_layer_norm_biases(*matrices, *biases, state["blocks.0.ln1.b"])
    folded = ProcessWeights.fold_layer_norm_weights(*matrices, state["blocks.0.ln1.w"])
    centred = ProcessWeights.center_attention_weights(*folded)
    for name, matrix, bias in zip(names, centred, moved, strict=True):
        torch.testing.assert_close(matrix, whole[name], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(bias, whole[name.replace("W_", "b_")], atol=1e-5, rtol=1e-4)
    alone = ProcessWeights.fold_layer_norm_biases(*matrices, None, None, None, state["blocks.0.ln1.b"])
    for given, other, own in zip(moved, alone, biases, strict=True):
        torch.testing.assert_close(given, other + own)
