"""What steering edits write, and that they hold in generation."""

import pytest
import torch

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.steering import activation_addition, add, clamp, interchange, project_out

HOOK = "blocks.2.hook_resid_pre"
TEXT = "The Eiffel Tower is in"


@pytest.fixture(scope="module", params=["native", "bridge"])
def model(request):
    boot = {"native": HookedTransformer.from_pretrained, "bridge": TransformerBridge.boot_transformers}
    return boot[request.param]("demo", device="cpu")


@pytest.fixture
def direction():
    return torch.randn(128, generator=torch.Generator().manual_seed(3))


def written(model, edit, hook=HOOK):
    _, before = model.run_with_cache(TEXT)
    with model.edit(edit):
        _, after = model.run_with_cache(TEXT)
    return before[hook], after[hook]


def test_add(model, direction):
    before, after = written(model, add(HOOK, direction, -3.0, pos=[1, -1]))
    wanted = before.clone()
    wanted[:, [1, 5]] -= 3 * direction
    torch.testing.assert_close(after, wanted)


def test_project_out(model, direction):
    other = direction.flip(0)
    before, after = written(model, project_out(HOOK, torch.stack([direction, other + direction])))
    for row in (direction, other):
        torch.testing.assert_close(after @ row, torch.zeros(1, 6), rtol=0, atol=1e-4)
    lost = before - after
    span = torch.stack([direction, other])
    torch.testing.assert_close(
        lost, torch.linalg.lstsq(span.T, lost[0].T).solution.T[None] @ span, rtol=1e-3, atol=1e-4
    )
    assert lost.norm() > 1e-2


def test_clamp(model, direction):
    unit = direction / direction.norm()
    before, after = written(model, clamp(HOOK, direction, low=-0.2, high=0.3))
    torch.testing.assert_close(after @ unit, (before @ unit).clamp(-0.2, 0.3), rtol=1e-4, atol=1e-5)
    across = before - (before @ unit)[..., None] * unit
    torch.testing.assert_close(after - (after @ unit)[..., None] * unit, across, rtol=1e-4, atol=1e-5)
    _, fixed = written(model, clamp(HOOK, direction, 7.0, 7.0))
    torch.testing.assert_close(fixed @ unit, torch.full((1, 6), 7.0))


def test_of_a_head(model):
    hook, direction = "blocks.1.attn.hook_z", torch.randn(32, generator=torch.Generator().manual_seed(0))
    before, after = written(model, add(hook, direction, head=2), hook)
    torch.testing.assert_close(after[:, :, 2], before[:, :, 2] + direction)
    assert torch.equal(after[:, :, [0, 1, 3]], before[:, :, [0, 1, 3]])


def test_activation_addition(model):
    prompt, minus = "The Colosseum is", "The Eiffel Tower is"
    edit = activation_addition(model, HOOK, prompt, 1.5, minus=minus)
    added = 1.5 * (model.run_with_cache(prompt)[1][HOOK] - model.run_with_cache(minus)[1][HOOK])
    before, after = written(model, edit)
    wanted = before.clone()
    wanted[:, : added.shape[1]] += added
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"as many tokens as each other: 4 in .*' Colos'.* 3 in"):
        activation_addition(model, HOOK, "The Colosseum", minus="John and")


@pytest.mark.parametrize("pos", [None, "prompt", "generated"])
@pytest.mark.parametrize("kind", ["add", "project", "clamp", "addition"])
def test_same_text_with_and_without_a_cache(model, direction, kind, pos):
    edit = {
        "add": lambda: add(HOOK, 3 * direction, pos=pos),
        "project": lambda: project_out([HOOK, "blocks.1.hook_attn_out"], direction, pos=pos),
        "clamp": lambda: clamp(HOOK, direction, low=20.0, pos=pos),
        "addition": lambda: activation_addition(model, HOOK, "The Colosseum is", 2.0),
    }[kind]()
    settings = {"max_new_tokens": 6, "do_sample": False, "verbose": False, "stop_at_eos": False, "output_logits": True}
    with model.edit(edit):
        cached = model.generate(TEXT, **settings)
        whole = model.generate(TEXT, use_past_kv_cache=False, **settings)
    assert cached.sequences.tolist() == whole.sequences.tolist()
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(whole.logits), rtol=1e-3, atol=1e-3)
    plain = model.generate(TEXT, **settings)
    assert not torch.allclose(torch.stack(plain.logits), torch.stack(cached.logits), atol=1e-3)


def test_interchange(model, direction):
    _, source = model.run_with_cache("The Colosseum is in")
    unit = direction / direction.norm()
    before, after = written(model, interchange(HOOK, source, direction, pos=[2, 5]))
    wanted = before.clone()
    for pos in (2, 5):
        wanted[0, pos] += ((source[HOOK][0, pos] - before[0, pos]) @ unit) * unit
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)
    _, same = model.run_with_cache(TEXT)
    unchanged = written(model, interchange(HOOK, same, direction))
    torch.testing.assert_close(*unchanged, rtol=0, atol=1e-5)
    whole = written(model, interchange(HOOK, source, torch.eye(128)))[1]
    torch.testing.assert_close(whole, source[HOOK], rtol=1e-4, atol=1e-4)


def test_says_what_it_does(model, direction):
    text = str(model.edit(clamp(HOOK, direction, high=2.0, pos="prompt"), project_out(HOOK, torch.eye(128)[:2])))
    assert text == (
        "clamp\n  blocks.2.hook_resid_pre, positions of the prompt: becomes itself with a coordinate along a direction "
        "kept between -inf and 2\n"
        "project out\n  blocks.2.hook_resid_pre, all positions: becomes itself without a subspace of 2 dimensions"
    )


def test_refuses(model, direction):
    with pytest.raises(ValueError, match=r"low not above high; got low=2\.0, high=1\.0"):
        clamp(HOOK, direction, 2.0, 1.0)
    with pytest.raises(ValueError, match="2 directions must be independent"):
        project_out(HOOK, torch.stack([direction, 2 * direction]))
    with pytest.raises(ValueError, match="none of them zero"):
        project_out(HOOK, torch.zeros(128))
