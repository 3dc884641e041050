"""Where one norm serves attention and MLP, hook_mlp_in is still the MLP's branch alone."""

import pytest
import torch

from models.families import hf_model, tokens
from transformer_lens import HookedTransformer, TransformerBridge


@pytest.mark.parametrize("row", ["gptj", "cohere", "falcon (7b)", "phi"])
def test_an_edit_moves_the_mlp_alone(row):
    bridge = TransformerBridge.boot_transformers(hf_model=hf_model(row), device="cpu")
    native = HookedTransformer.from_pretrained_no_processing(row, hf_model=hf_model(row), device="cpu")
    ids, name = tokens(2, 6), "blocks.1.hook_mlp_in"
    _, plain = bridge.run_with_cache(ids, names_filter=[name, "blocks.1.hook_resid_pre"])
    assert torch.equal(plain[name], plain["blocks.1.hook_resid_pre"])

    def edit(stream, hook):
        stream[:, 2:] *= torch.linspace(-1, 2, stream.shape[-1])
        return stream

    found = []
    for model in (bridge, native):
        with model.hooks(fwd_hooks=[(name, edit)]):
            logits, cache = model.run_with_cache(ids, names_filter=["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"])
        found.append((logits, cache["attn_out", 1], cache["mlp_out", 1]))
    for wrapped, ours in zip(*found, strict=True):
        torch.testing.assert_close(wrapped, ours, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(found[0][0], bridge(ids), atol=1e-2)


def test_looking_changes_nothing():
    bridge = TransformerBridge.boot_transformers(hf_model=hf_model("gptj"), device="cpu")
    with bridge.hooks(fwd_hooks=[("blocks.0.hook_mlp_in", lambda stream, hook: stream.clone())]):
        assert torch.equal(bridge(tokens(2, 6)), hf_model("gptj")(tokens(2, 6)).logits)
