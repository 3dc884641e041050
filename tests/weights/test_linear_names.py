"""State dicts as weights of linear layers. Names and shapes are those that 4.3 gives for the same state dict."""

import pytest
import torch

from transformer_lens import HookedTransformer, HookedTransformerConfig, TransformerBridge
from transformer_lens.weights.checkpoints import CheckpointError
from transformer_lens.weights.linear_names import canonical_of_linear, convert_tl_checkpoint

SIZES = {"d_model": 8, "d_head": 4, "n_heads": 2, "n_layers": 1, "n_ctx": 6, "d_vocab": 7, "d_mlp": 12}
RECORDED = {
    "embed.weight": (7, 8), "pos_embed.weight": (6, 8), "ln_final.weight": (8,), "ln_final.bias": (8,),
    "unembed.weight": (7, 8), "unembed.bias": (7,), "blocks.0.attn.q.weight": (8, 8), "blocks.0.attn.q.bias": (8,),
    "blocks.0.attn.k.weight": (4, 8), "blocks.0.attn.k.bias": (4,), "blocks.0.attn.v.weight": (4, 8),
    "blocks.0.attn.v.bias": (4,), "blocks.0.attn.o.weight": (8, 8), "blocks.0.attn.o.bias": (8,),
    "blocks.0.ln1.weight": (8,), "blocks.0.ln1.bias": (8,), "blocks.0.ln2.weight": (8,), "blocks.0.ln2.bias": (8,),
    "blocks.0.mlp.in.weight": (12, 8), "blocks.0.mlp.in.bias": (12,), "blocks.0.mlp.out.weight": (8, 12),
    "blocks.0.mlp.out.bias": (8,),
}  # fmt: skip


def config(**fields):
    return HookedTransformerConfig(**{**SIZES, "act_fn": "gelu", **fields})


def model_of(cfg):
    torch.manual_seed(0)
    model = HookedTransformer(cfg)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_names_and_shapes():
    cfg = config(n_key_value_heads=1)
    state = convert_tl_checkpoint(model_of(cfg).state_dict(), cfg)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == RECORDED


def test_a_linear_layer_of_these_weights_computes_the_queries():
    cfg = config()
    model = model_of(cfg)
    state = convert_tl_checkpoint(model.state_dict(), cfg)
    x = torch.randn(3, 8)
    q = torch.nn.functional.linear(x, state["blocks.0.attn.q.weight"], state["blocks.0.attn.q.bias"])
    expected = torch.einsum("pd,hdk->phk", x, model.W_Q[0]) + model.b_Q[0]
    torch.testing.assert_close(q.unflatten(-1, (2, 4)), expected)
    z = torch.randn(3, 2, 4)
    out = torch.nn.functional.linear(z.flatten(1), state["blocks.0.attn.o.weight"])
    torch.testing.assert_close(out, torch.einsum("phk,hkd->pd", z, model.W_O[0]))


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [{}, {"n_key_value_heads": 1}, {"normalization_type": None}, {"normalization_type": "RMS"}, {"attn_only": True},
     {"positional_embedding_type": "rotary"}, {"gated_mlp": True}, {"d_vocab_out": 5}],
    ids=str,
)  # fmt: skip
def test_a_native_bridge_takes_them_and_runs_as_the_model_did(fields):
    cfg = config(**fields)
    model, tokens = model_of(cfg), torch.tensor([[1, 2, 3, 4]])
    bridge = TransformerBridge.boot_native(cfg)
    bridge.load_state_dict(convert_tl_checkpoint(model.state_dict(), cfg))
    torch.testing.assert_close(bridge(tokens), model(tokens), rtol=1e-5, atol=1e-5)
    back = canonical_of_linear(convert_tl_checkpoint(model.state_dict(), cfg), cfg, ())
    state = {name.replace("._", "."): tensor for name, tensor in model.state_dict().items()}
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_what_follows_from_the_configuration_is_left_out():
    old = {"blocks.0.attn.mask": torch.ones(6, 6), "blocks.0.attn.IGNORE": torch.tensor(-torch.inf)}
    old |= {"blocks.0.attn.rotary_sin": torch.ones(6, 4), "pos_embed.W_pos": torch.ones(6, 8)}
    assert list(convert_tl_checkpoint(old, config())) == ["pos_embed.weight"]


def test_what_does_not_fit_is_refused():
    state = model_of(config()).state_dict()
    with pytest.raises(
        ValueError, match=r"blocks\.0\.attn\.W_Q has shape \(2, 8, 4\), and the configuration says \(4, 8, 2\)"
    ):
        convert_tl_checkpoint(state, config(n_heads=4, d_head=2))
    with pytest.raises(CheckpointError, match="holds zork, which is no canonical tensor"):
        convert_tl_checkpoint({"zork": torch.ones(1)}, config())
    with pytest.raises(CheckpointError, match=r"embed\.weight, which is no canonical tensor"):
        convert_tl_checkpoint({"embed.weight": torch.ones(1)}, config())
    with pytest.raises(CheckpointError, match=r"blocks\.5\.attn\.b_O, and the configuration has 1 layers"):
        convert_tl_checkpoint({"blocks.5.attn.b_O": torch.ones(8)}, config())
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.q\.weight is \(6, 8\), for 2 heads of 4"):
        canonical_of_linear({"blocks.0.attn.q.weight": torch.ones(6, 8)}, config(), ())
