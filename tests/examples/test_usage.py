"""What people write with such a library, as courses and guides show it, on the embedded model."""

from functools import partial

import pytest
import torch

import transformer_lens
from transformer_lens import HookedTransformer


@pytest.fixture(scope="module")
def model():
    return HookedTransformer.from_pretrained("demo")


def test_what_comes_next(model):
    logits, cache = model.run_with_cache("The Eiffel Tower is in")
    assert model.to_string(logits[0, -1].argmax()) == " Paris"
    pattern = cache["blocks.3.attn.hook_pattern"][0, :, -1, :]
    assert pattern.shape == (4, 6)
    assert transformer_lens.HookedTransformer is HookedTransformer


def test_zero_a_head_by_its_result(model):
    tokens = model.to_tokens("The Eiffel Tower is in")

    def zero_head_hook(activation, hook):
        activation[:, :, 3, :] = 0
        return activation

    logits = model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.attn.hook_result", zero_head_hook)])
    assert not torch.allclose(logits, model(tokens))


def test_cache_by_short_names_and_filters(model):
    tokens = model.to_tokens("The Eiffel Tower is in")
    _, cache = model.run_with_cache(tokens)
    assert cache["resid_post", 3].shape == (1, 6, model.cfg.d_model)
    assert cache["pattern", 3].shape == (1, 4, 6, 6)
    assert cache["mlp_out", 2].shape == (1, 6, model.cfg.d_model)
    _, cache = model.run_with_cache(
        "The robot picked up the wrench and tightened the bolt.",
        names_filter=lambda name: "hook_resid_post" in name or "attn.hook_pattern" in name,
        device="cpu",
    )
    assert len(cache) == 2 * model.cfg.n_layers


def test_causal_tracing_by_hand(model):
    clean_tokens = model.to_tokens("The Eiffel Tower is in the city of")
    corrupted_tokens = model.to_tokens("The Colosseum is in the city of")
    _, clean_cache = model.run_with_cache(clean_tokens)
    paris_token, rome_token = model.to_single_token(" Paris"), model.to_single_token(" Rome")

    def metric(logits):
        return logits[0, -1, paris_token] - logits[0, -1, rome_token]

    results = torch.zeros(model.cfg.n_layers, clean_tokens.shape[1])
    for layer in range(model.cfg.n_layers):
        for pos in range(clean_tokens.shape[1]):

            def patch_hook(activation, hook, pos=pos):
                activation[0, pos] = clean_cache[hook.name][0, pos]
                return activation

            patched = model.run_with_hooks(
                corrupted_tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", patch_hook)]
            )
            results[layer, pos] = metric(patched)
    assert results.argmax().item() == results.numel() - 1  # after the last layer, the last position is everything
    torch.testing.assert_close(results[-1, -1], metric(model(clean_tokens)), atol=1e-3, rtol=1e-4)


def test_indirect_object_by_hand(model):
    tokens = model.to_tokens("When John and Mary went to the store, Mary gave a bottle to")
    logits, cache = model.run_with_cache(tokens)
    john_token, mary_token = model.to_single_token(" John"), model.to_single_token(" Mary")
    assert logits[0, -1, john_token] > logits[0, -1, mary_token]

    def get_head_contribution(layer, head):
        head_out = cache["z", layer][0, :, head, :]
        contribution = head_out[-1] @ model.W_O[layer, head] @ model.W_U
        return contribution[john_token] - contribution[mary_token]

    contributions = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            contributions[layer, head] = get_head_contribution(layer, head)
    assert contributions.max() > 0


def test_induction_by_hand(model):
    repeated_tokens = torch.tensor([[1000, 2000, 1000]])
    _, cache = model.run_with_cache(repeated_tokens)
    scores = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    for layer in range(model.cfg.n_layers):
        scores[layer] = cache["pattern", layer][0][:, 2, 1]
    assert torch.topk(scores.flatten(), k=5).values.min() >= 0


def test_tokens_can_be_looked_at(model):
    tokens = model.to_tokens("Neel", prepend_bos=False)
    assert "".join(model.to_str_tokens(tokens)) == "Neel"
    str_tokens = model.to_str_tokens(model.to_tokens("The robot rolled up.")[0])
    assert str_tokens[1:] == [piece for piece in str_tokens[1:] if piece]


def test_normalised_stream_times_weights(model):
    _, cache = model.run_with_cache("The Eiffel Tower is in")
    layer = 2
    ln_out = model.blocks[layer].ln2(cache["resid_mid", layer])
    pre = ln_out @ model.W_in[layer] + model.b_in[layer]
    torch.testing.assert_close(pre, cache["pre", layer], atol=1e-4, rtol=1e-4)
    assert model.blocks[layer].ln2.w.shape == (model.cfg.d_model,)


def test_patch_a_whole_stream(model):
    tokens_a = model.to_tokens("Alice gave Bob a book. Bob thanked Alice.")
    tokens_b = model.to_tokens("Alice gave Bob a book. Bob called Alice.")
    logits_a, cache_a = model.run_with_cache(tokens_a, names_filter=lambda n: "hook_resid_post" in n)
    hookpoint = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"

    def patch_resid_post(resid, hook):
        return cache_a[hookpoint]

    patched = model.run_with_hooks(tokens_b, fwd_hooks=[(hookpoint, patch_resid_post)])
    torch.testing.assert_close(patched, logits_a)


def test_most_attended_token(model):
    tokens = model.to_tokens("The robot rolled up to the gas station, grabbed the nozzle, and began filling its tank.")
    str_tokens = model.to_str_tokens(tokens[0])
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: "attn.hook_pattern" in name)
    attention = cache["blocks.0.attn.hook_pattern"][0][0, -1]
    torch.testing.assert_close(attention.sum(), torch.tensor(1.0))
    assert str_tokens[int(torch.argmax(attention).item())] in str_tokens


def test_ablation_by_a_partial_function(model):
    tokens = model.to_tokens("The robot rolled up to the gas station, grabbed the nozzle, and began filling its")

    def ablate_head_z(z, hook, head_idx):
        z = z.clone()
        z[:, :, head_idx, :] = 0.0
        return z

    hooks = [("blocks.2.attn.hook_z", partial(ablate_head_z, head_idx=1))]
    assert not torch.allclose(model.run_with_hooks(tokens, fwd_hooks=hooks), model(tokens))
