"""Single tensors between transformers' names and canonical ones, through the old names of `ProcessWeights`."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.errors import UnknownNameError
from transformer_lens.weights.matrix_index import WeightsError
from transformer_lens.weights.processing.process_weights import ProcessWeights


def gpt2():
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=16)
    return TransformerBridge.boot_transformers(hf_model=GPT2LMHeadModel(config).eval())


def llama():
    config = LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    return TransformerBridge.boot_transformers(hf_model=LlamaForCausalLM(config))


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("name", ["W_Q", "W_K", "W_O", "b_Q", "b_O"])
def test_a_tensor_is_as_the_bridge_reads_it(make, name):
    bridge = make()
    arguments = bridge.state_dict(), None, bridge.cfg, bridge.host.anatomy
    expected = getattr(bridge.blocks[1].attn, name) if make is gpt2 or name.startswith("W") else None
    linear = f"blocks.1.attn.{name[-1].lower()}.{'weight' if name.startswith('W') else 'bias'}"
    for spelling in (f"blocks.1.attn.{name}", linear):
        found = ProcessWeights.convert_tensor_to_tl_format(spelling, *arguments, 1)
        assert found is None if expected is None else torch.equal(found, expected)
    assert ProcessWeights.convert_tensor_to_tl_format("blocks.1.zork", *arguments) is None


def test_and_back():
    bridge = llama()
    state, anatomy = bridge.state_dict(), bridge.host.anatomy
    for ours, theirs in (
        ("attn.W_K", "self_attn.k_proj"),
        ("attn.W_O", "self_attn.o_proj"),
        ("mlp.W_in", "mlp.up_proj"),
    ):
        held = state[f"model.layers.1.{theirs}.weight"]
        canonical = ProcessWeights.convert_tensor_to_tl_format(f"blocks.1.{ours}", state, held, bridge.cfg, anatomy)
        back = ProcessWeights.convert_tensor_to_hf_format(f"blocks.1.{ours}", canonical, bridge.cfg, anatomy)
        assert torch.equal(back, held)
    for convert in (lambda *a: ProcessWeights.convert_tensor_to_tl_format(a[0], {}, *a[1:]),
                    ProcessWeights.convert_tensor_to_hf_format):  # fmt: skip
        assert convert("blocks.1.attn.W_K", held, bridge.cfg) is held
    assert ProcessWeights.convert_tensor_to_hf_format("blocks.1.attn.W_K", None, bridge.cfg, anatomy) is None
    with pytest.raises(UnknownNameError, match=r"no blocks\.1\.attn\.b_Q"):
        ProcessWeights.convert_tensor_to_hf_format("blocks.1.attn.b_Q", held, bridge.cfg, anatomy)


def test_what_is_fused_cannot_stand_alone():
    bridge = gpt2()
    with pytest.raises(
        WeightsError, match=r"keeps blocks\.0\.attn\.W_Q, .* in one tensor \(transformer\.h\.0\.attn\.c_attn"
    ):
        ProcessWeights.convert_tensor_to_hf_format(
            "blocks.0.attn.W_Q", bridge.blocks[0].attn.W_Q, bridge.cfg, bridge.host.anatomy
        )


def test_what_folding_needs():
    bridge = gpt2()
    found = ProcessWeights.extract_attention_tensors_for_folding(
        bridge.state_dict(), bridge.cfg, 1, bridge.host.anatomy
    )
    # Shapes and short names as 4.3 gives them.
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items() if name != "keys"}
    assert shapes == {
        **dict.fromkeys(("wq", "wk", "wv"), (2, 8, 4)), **dict.fromkeys(("bq", "bk", "bv"), (2, 4)),
        "ln1_b": (8,), "ln1_w": (8,),
    }  # fmt: skip
    assert found["keys"]["W_Q"] == "transformer.h.1.attn.c_attn.weight"
    assert torch.equal(found["wq"], bridge.blocks[1].attn.W_Q)
    model = HookedTransformer(
        {"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 6, "d_vocab": 7, "n_key_value_heads": 1, "act_fn": "gelu"}
    )
    state = model.state_dict()
    found = ProcessWeights.extract_attention_tensors_for_folding(state, model.cfg, 0, None)
    assert found["wk"] is state["blocks.0.attn._W_K"]
    assert found["keys"]["W_K"] == "blocks.0.attn._W_K"
    assert ProcessWeights.extract_attention_tensors_for_folding(
        {"blocks.0.ln1.w": state["blocks.0.ln1.w"]}, model.cfg, 0, None
    )["wq"] is None  # fmt: skip


def test_weights_are_distributed_to_parts(caplog):
    source, target = gpt2(), gpt2()
    parts = {name: ("", getattr(target, name)) for name in ("embed", "pos_embed", "ln_final", "unembed")}
    parts["blocks"] = ("transformer.h", list(target.blocks))
    with caplog.at_level("INFO"):
        ProcessWeights.distribute_weights_to_components(source.tl_parameters(), parts, verbose=True)
    assert "blocks.1.attn.W_Q: (2, 8, 4)" in caplog.text
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(target(tokens), source(tokens))
    with pytest.raises(WeightsError, match=r"No part is named for zork\.w; there are embed"):
        ProcessWeights.distribute_weights_to_components({"zork.w": torch.ones(1)}, parts)
    with pytest.raises(WeightsError, match=r"This model has no unembed\.b_U, and it is not zero"):
        ProcessWeights.distribute_weights_to_components({"unembed.b_U": torch.ones(20)}, parts)
    ProcessWeights.distribute_weights_to_components({"unembed.b_U": torch.zeros(20)}, parts)
    assert "b_U" not in vars(target.unembed)


def test_centring_needs_no_configuration():
    model = HookedTransformer.from_pretrained_no_processing("demo", device="cpu")
    state = model.state_dict()
    centred = ProcessWeights.center_unembed(state)
    assert torch.equal(centred["unembed.W_U"], ProcessWeights.center_unembed(state, model.cfg)["unembed.W_U"])
    assert bool((centred["unembed.W_U"].mean(-1).abs() < 1e-6).all())
    assert bool((state["unembed.W_U"].mean(-1).abs() > 1e-3).any())
