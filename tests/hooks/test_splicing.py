"""Clients replace hook points and submodules, as sparse-autoencoder libraries do."""

import pytest
import torch
from torch import nn

from toys import TOKENS, toy
from transformer_lens import HookedRootModule, HookedTransformer, HookPoint


class Splice(HookedRootModule):
    """An autoencoder with hook points of its own, over the last axis."""

    def __init__(self, width):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.W = nn.Parameter(torch.randn(width, 24, generator=generator) / width**0.5)
        self.hook_sae_input, self.hook_sae_acts_post, self.hook_sae_output = HookPoint(), HookPoint(), HookPoint()
        self.setup()

    def forward(self, x):
        acts = self.hook_sae_acts_post((self.hook_sae_input(x) @ self.W).relu())
        return self.hook_sae_output(acts @ self.W.T)


def place(model, name, module):
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)
    model.setup()


SLOTS = {
    "blocks.0.hook_mlp_out": 16,
    "blocks.0.hook_resid_pre": 16,
    "blocks.0.hook_resid_mid": 16,
    "blocks.1.hook_resid_post": 16,
    "blocks.0.attn.hook_z": 4,
    "blocks.0.attn.hook_result": 16,
    "blocks.0.attn.hook_k": 4,
    "blocks.0.attn.hook_pattern": 7,
    "blocks.1.hook_q_input": 16,
    "blocks.0.hook_mlp_in": 16,
    "blocks.0.mlp.hook_post": 20,
    "blocks.0.ln1.hook_normalized": 16,
    "hook_embed": 16,
}


@pytest.mark.parametrize("slot", list(SLOTS))
def test_a_module_in_a_slot_runs_and_is_hooked_and_a_bare_hook_point_restores_it(slot):
    model, sae = toy(), Splice(SLOTS[slot])
    before = model(TOKENS)
    wanted = model.run_with_hooks(TOKENS, fwd_hooks=[(slot, lambda a, hook: sae(a))])
    place(model, slot, sae)
    assert slot not in model.hook_dict
    assert f"{slot}.hook_sae_acts_post" in model.hook_dict
    torch.testing.assert_close(model(TOKENS), wanted)
    assert not torch.allclose(wanted, before)
    logits, cache = model.run_with_cache(TOKENS)
    torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=2e-5)
    inner = cache[f"{slot}.hook_sae_acts_post"]
    assert inner.shape[-1] == 24
    torch.testing.assert_close((cache[f"{slot}.hook_sae_input"] @ sae.W).relu(), inner)
    _, alone = model.run_with_cache(TOKENS, names_filter=f"{slot}.hook_sae_acts_post", return_type=None)
    torch.testing.assert_close(alone[f"{slot}.hook_sae_acts_post"], inner, atol=2e-5, rtol=2e-5)
    edited = model.run_with_hooks(TOKENS, fwd_hooks=[(f"{slot}.hook_sae_acts_post", lambda a, hook: a * 2)])
    assert not torch.allclose(edited, wanted)
    place(model, slot, HookPoint())
    assert torch.equal(model(TOKENS), before)
    assert slot in model.hook_dict
    assert model.hook_dict[slot].name == slot
    assert not any("sae" in name for name in model.hook_dict)
    zeroed = model.run_with_hooks(TOKENS, fwd_hooks=[(slot, lambda a, hook: a * 0.5)])
    assert not torch.allclose(zeroed, before)


def test_the_other_spelling_of_a_replaced_point_is_unknown_until_it_is_back():
    model = toy()
    place(model, "blocks.0.hook_mlp_out", Splice(16))
    with pytest.raises(KeyError, match=r"blocks\.0\.mlp\.hook_out"):
        model.add_hook("blocks.0.mlp.hook_out", lambda a, hook: None)
    _, cache = model.run_with_cache(TOKENS, names_filter=lambda name: name.endswith(".mlp.hook_out"))
    assert set(cache) == {"blocks.1.hook_mlp_out"}


def test_gradients_reach_the_module_in_a_slot():
    model, sae = toy(), Splice(16)
    model.requires_grad_(False)
    place(model, "blocks.0.hook_mlp_out", sae)
    _, cache = model.run_with_cache(TOKENS, return_type="loss", incl_bwd=True)
    assert sae.W.grad.abs().max() > 0
    assert cache["blocks.0.hook_mlp_out.hook_sae_acts_post_grad"].shape == (2, 7, 24)


def test_a_transcoder_in_place_of_the_mlp():
    model, width = toy(), 16
    before = model(TOKENS)
    own, transcoder = model.blocks[0].mlp, Splice(width)
    place(model, "blocks.0.mlp", transcoder)
    _, cache = model.run_with_cache(TOKENS)
    torch.testing.assert_close(cache["mlp_out", 0], transcoder(cache["blocks.0.mlp.hook_sae_input"]))
    assert "blocks.0.mlp.hook_post" not in model.hook_dict
    assert not torch.allclose(model(TOKENS), before)
    place(model, "blocks.0.mlp", own)
    assert torch.equal(model(TOKENS), before)
    assert "blocks.0.mlp.hook_post" in model.hook_dict


def test_another_unembedding():
    model = toy()
    residual = model.ln_final(model(TOKENS, stop_at_layer=2))
    model.unembed = nn.Linear(16, 5)
    model.setup()
    torch.testing.assert_close(model(TOKENS), model.unembed(residual))


def test_a_subclass_with_hook_points_of_its_own():
    class Probed(HookedTransformer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.hook_probe = HookPoint()
            self.setup()

        def forward(self, *args, **kwargs):
            return self.hook_probe(super().forward(*args, **kwargs))

    model = Probed(toy().cfg)
    logits, cache = model.run_with_cache(TOKENS)
    assert torch.equal(cache["hook_probe"], logits)
    doubled = model.run_with_hooks(TOKENS, fwd_hooks=[("hook_probe", lambda a, hook: a * 2)])
    torch.testing.assert_close(doubled, 2 * model(TOKENS))
    demo = Probed.from_pretrained("demo", device="cpu")
    assert isinstance(demo, Probed)
    assert "hook_probe" in demo.hook_dict


def test_a_hook_point_with_a_forward_of_its_own_at_the_scores():
    class Flat(HookPoint):
        def forward(self, x):
            return super().forward(torch.zeros_like(x))

    model = toy("bidirectional")
    wanted = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.hook_attn_scores", lambda a, hook: a * 0)])
    place(model, "blocks.0.attn.hook_attn_scores", Flat())
    torch.testing.assert_close(model(TOKENS), wanted)
