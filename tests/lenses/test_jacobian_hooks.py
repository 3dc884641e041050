"""Hooks along lens vectors: what each leaves of the stream, on both hosts."""

import pytest
import torch
from lens_models import DEMOS, demo_on, small

from annotations import unchecked
from toys import TOKENS
from transformer_lens.lenses import JacobianLens, jacobian_lens

HOSTS = ["plain", "gpt2 bridge", "llama native"]
OUT = "blocks.0.hook_out"


def edited(name, hooks):
    """The output of block 0 after the hooks, without them, and the lens."""
    model = small(name)
    clean = model.run_with_cache(TOKENS, names_filter=OUT)[1][OUT].detach()
    seen = []
    with torch.no_grad():
        model.run_with_hooks(TOKENS, fwd_hooks=[*hooks, (OUT, lambda stream, hook: seen.append(stream.clone()))])
    return seen[0], clean


def lens_of(name):
    return jacobian_lens(small(name), TOKENS)


@pytest.mark.parametrize("name", HOSTS)
def test_steering_adds_a_share_of_the_median_norm(name):
    model, lens = small(name), lens_of(name)
    direction = lens.lens_vectors(model, 5, 0)[0]
    for positions in (None, [1, -1]):
        stream, clean = edited(name, lens.steering_hooks(model, 5, [0], alpha=0.7, positions=positions))
        there = clean if positions is None else clean[:, positions]
        added = 0.7 * there.norm(dim=-1).median() * direction / direction.norm()
        expected = clean.clone()
        expected[:, slice(None) if positions is None else positions] += added
        torch.testing.assert_close(stream, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", HOSTS)
def test_ablation_leaves_nothing_along_the_vectors(name):
    model, lens = small(name), lens_of(name)
    stream, clean = edited(name, lens.ablation_hooks(model, [5, 6], [0], positions=[2]))
    vectors = lens.lens_vectors(model, [5, 6], 0)
    assert (stream[:, 2] @ vectors.T).abs().max() < 1e-4
    assert (clean[:, 2] @ vectors.T).abs().max() > 0.1
    others = [position for position in range(clean.shape[1]) if position != 2]
    assert torch.equal(stream[:, others], clean[:, others])


@pytest.mark.parametrize("name", HOSTS)
def test_swaps(name):
    model, lens = small(name), lens_of(name)
    swap = lens.swap_hooks(model, 5, 6, [0])
    inverse = torch.linalg.pinv(lens.lens_vectors(model, [5, 6], 0))
    stream, clean = edited(name, swap)
    torch.testing.assert_close(stream @ inverse, (clean @ inverse).flip(-1), atol=1e-4, rtol=1e-4)
    assert (stream - clean).abs().max() > 0.01
    twice, _ = edited(name, swap * 2)
    torch.testing.assert_close(twice, clean, atol=1e-4, rtol=1e-4)
    _, cache = model.run_with_cache(TOKENS)
    for given in (cache, {OUT: clean}, {"blocks.0.hook_resid_post": clean}):
        clamp = lens.swap_hooks(model, 5, 6, [0], clamp_to=given)
        for often in (1, 2):
            torch.testing.assert_close(edited(name, clamp * often)[0], stream, atol=1e-4, rtol=1e-4)
    with pytest.warns(DeprecationWarning, match="call swap_hooks"):
        old = lens.swap_clamp_hooks(model, 5, 6, [0], cache, positions=[1])
    torch.testing.assert_close(edited(name, old)[0][:, 1], stream[:, 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", HOSTS)
def test_coordinates_are_patched_as_the_pass_runs(name):
    model, lens = small(name), lens_of(name)
    clean = edited(name, [])[0]
    source = lens.decompose(model, clean[0, 3], 0, k=4).support[0].item()
    target = (source + 1) % 31
    cache = {}
    hooks = lens.coordinate_patch_hooks(model, source, target, [0], positions=[3], k=4, decomposition_cache=cache)
    with torch.no_grad():
        plain, found = model(TOKENS[:1]), model.run_with_hooks(TOKENS[:1], fwd_hooks=hooks)
    patch = lens.coordinate_patch(model, TOKENS[:1], 0, source, target, position=3, k=4)
    given = model.run_with_hooks(TOKENS[:1], fwd_hooks=[(OUT, lambda stream, hook: put(stream, patch.patched))])
    torch.testing.assert_close(found, given, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 1e-3
    assert list(cache) == [(0, 0, 3)]
    still = lens.coordinate_patch_hooks(model, source, target, [0], positions=[3], k=4, alpha=0.0)
    torch.testing.assert_close(model.run_with_hooks(TOKENS[:1], fwd_hooks=still), plain)


def put(stream, value):
    stream = stream.clone()
    stream[:, 3] = value
    return stream


@pytest.mark.parametrize("host", DEMOS)
def test_on_demo_one_city_is_made_another(host):
    model, prompt = demo_on(host), "The Eiffel Tower is in"
    lens = jacobian_lens(model, prompt)
    logits = model.run_with_hooks(prompt, fwd_hooks=lens.steering_hooks(model, " Rome", [2], alpha=1.0))
    assert model.to_string(logits[0, -1].argmax()) == " Rome"
    without = model.run_with_hooks(prompt, fwd_hooks=lens.ablation_hooks(model, " Paris", [2]))
    paris = model.to_single_token(" Paris")
    assert without[0, -1].softmax(-1)[paris] < 0.01 < 0.5 < model(prompt)[0, -1].softmax(-1)[paris]


def test_what_makes_no_hook():
    model, lens = small("plain"), lens_of("plain")
    ones = torch.ones(2, 3, 16)
    refused = [
        (lambda: lens.steering_hooks(model, 5, []), r"layers is empty: name at least one of \[0\]"),
        (lambda: lens.steering_hooks(model, 5, [1]), r"no layer 1; it has \[0\]"),
        (lambda: lens.steering_hooks(model, 99, [0]), r"ids from 0 to 30; got \[99\]"),
        (lambda: lens.steering_hooks(model, [5, 6], [0]), r"token is one token; got \[5, 6\]"),
        (lambda: lens.ablation_hooks(model, [], [0]), "one or more tokens"),
        (lambda: lens.swap_hooks(model, 5, 5, [0]), "are the same token, 5: nothing would change"),
        (lambda: lens.swap_hooks(model, 5, 6, [0], clamp_to={}), r"clamp_to has no 'blocks.0.hook_out'"),
        (lambda: lens.swap_hooks(model, 5, 6, [0], clamp_to={OUT: ones[0]}), r"is \[batch, pos, 16\]; got \(3, 16\)"),
        (lambda: lens.coordinate_patch_hooks(model, 5, 6, [0], positions=[]), "positions is empty"),
        (lambda: lens.coordinate_patch_hooks(model, 5, 6, [0], positions=[0], mode="x"), "mode is one of"),
        (lambda: edited("plain", lens.steering_hooks(model, 5, [0], positions=[99])), "positions are one or more"),
        (lambda: edited("plain", lens.swap_hooks(model, 5, 6, [0], clamp_to={OUT: ones})), "has .* rows and positions"),
    ]
    for make, said in refused:
        with unchecked(), pytest.raises(ValueError, match=said):
            make()
    flat = JacobianLens({0: torch.zeros(16, 16)}, n_prompts=1, d_model=16)
    with pytest.raises(ValueError, match="zero or not finite"):
        flat.steering_hooks(model, 5, [0])
    line = JacobianLens({0: torch.outer(torch.ones(16), torch.arange(1.0, 17))}, n_prompts=1, d_model=16)
    with pytest.raises(ValueError, match="two lens vectors at layer 0 are parallel"):
        line.swap_hooks(model, 5, 6, [0])


def test_what_is_not_decomposed():
    model, lens = small("plain"), lens_of("plain")
    for given, position, said in (
        (torch.ones(16), 3, "takes no position"),
        (torch.ones(1, 16), None, r"An activation has shape \[16\]"),
        (TOKENS[:1], None, "A prompt needs a position"),
        (TOKENS, 3, "One prompt at a time"),
        (TOKENS[:1], 99, "positions are one or more"),
    ):
        with pytest.raises(ValueError, match=said):
            lens.decompose(model, given, 0, position=position, k=2)


def test_the_dictionary_follows_the_weights():
    model, lens = small("plain"), lens_of("plain")
    kept = lens.lens_vector_dictionary(model, 0)
    assert lens.lens_vector_dictionary(model, -2) is kept
    torch.testing.assert_close(kept[[3, 5]], lens.lens_vectors(model, [3, 5], 0))
    before = model.unembed.W_U.data.clone()
    model.unembed.W_U.data.mul_(2)  # no version counter sees this
    try:
        torch.testing.assert_close(lens.lens_vector_dictionary(model, 0), 2 * kept)
    finally:
        model.unembed.W_U.data.copy_(before)
    again = lens.lens_vector_dictionary(model, 0)
    lens.clear_device_cache()
    assert lens.lens_vector_dictionary(model, 0) is not again
