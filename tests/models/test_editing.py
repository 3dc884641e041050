"""`model.edit`: what it does, how long, in every way of running, on both hosts."""

import pytest
import torch
from tests.annotations import unchecked
from tests.toys import hook_count

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.errors import UnknownNameError
from transformer_lens.hooks.edits import Edit
from transformer_lens.patching import Intervention, LogitDifference, sweep

HOSTS = {
    "native": lambda: HookedTransformer.from_pretrained("demo", device="cpu"),
    "bridge": lambda: TransformerBridge.boot_transformers("demo", device="cpu"),
}
PROMPT = "When John and Mary went to the store, Mary gave a bottle to"
Z1 = "blocks.1.attn.hook_z"
STREAM = "blocks.2.hook_resid_pre"


@pytest.fixture(scope="module", params=HOSTS)
def model(request):
    return HOSTS[request.param]()


def direction(model, seed=0, size=6.0):
    drawn = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return size * drawn / drawn.norm()


def silence(z, hook):
    z[:, :, 0] = 0.0


def test_gives_what_a_hook_gives_in_every_way_of_running(model):
    tokens = model.to_tokens(PROMPT)
    wanted = model.run_with_hooks(tokens, fwd_hooks=[(Z1, silence)])
    plain = model(tokens)
    with model.edit(Intervention(Z1, "zero", head=0)):
        torch.testing.assert_close(model(tokens), wanted)
        logits, cache = model.run_with_cache(tokens)
        torch.testing.assert_close(logits, wanted)
        assert not cache["z", 1][:, :, 0].any()
        assert cache["z", 1][:, :, 1].any()
        torch.testing.assert_close(model.run_with_hooks(tokens, fwd_hooks=[(Z1, lambda z, hook: None)]), wanted)
    torch.testing.assert_close(model(tokens), plain, rtol=0, atol=0)


def test_gone_at_the_end_and_after_an_exception(model):
    before, tokens = hook_count(model), model.to_tokens(PROMPT)
    plain = model(tokens)
    edited = model.edit(Intervention(Z1, "zero"))
    with pytest.raises(KeyError, match="mine"), edited:
        raise KeyError("mine" * len(model.edits))
    assert hook_count(model) == before
    assert model.edits == ()
    assert torch.equal(model(tokens), plain)


def test_nests_and_takes_several_sets(model):
    tokens, added = model.to_tokens(PROMPT), direction(model)
    one = Edit("no L1H0", (Intervention(Z1, "zero", head=0),))
    two = Edit("half", (Intervention(STREAM, lambda part: part / 2),))
    with model.edit(one, two):
        together = model(tokens)
        assert [edit.name for edit in model.edits] == ["no L1H0", "half"]
    with model.edit(one):
        alone = model(tokens)
        with model.edit(two):
            torch.testing.assert_close(model(tokens), together)
        torch.testing.assert_close(model(tokens), alone)
        with model.hooks(fwd_hooks=[(STREAM, lambda stream, hook: stream + added)]), model.edit(two):
            halved_after = model(tokens)
            model.reset_hooks()  # takes the hook, leaves the edits
            torch.testing.assert_close(model(tokens), together)
        assert not torch.allclose(halved_after, together)
    assert model.edits == ()


def test_at_one_point_the_order_is_that_of_the_call(model):
    tokens = model.to_tokens(PROMPT)
    twice, plus = (
        Edit("twice", (Intervention(STREAM, lambda x: 2 * x),)),
        Edit("plus", (Intervention(STREAM, lambda x: x + 1),)),
    )
    with model.edit(twice, plus):
        _, cache = model.run_with_cache(tokens, names_filter=STREAM)
    _, plain = model.run_with_cache(tokens, names_filter=STREAM)
    torch.testing.assert_close(cache[STREAM], 2 * plain[STREAM] + 1)


def test_says_what_it_does(model):
    edits = [
        Edit("silent", (Intervention(Z1, "zero", pos=[1, 2], head=0), Intervention(STREAM, 0.5, neuron=[3, 4]))),
        Edit("copy", (Intervention(STREAM, {}, pos="prompt"), Intervention(STREAM, silence, pos=-1))),
    ]
    text = (
        "silent\n"
        f"  {Z1}, positions 1, 2, head 0: becomes zero\n"
        f"  {STREAM}, all positions, neurons 3, 4: becomes 0.5\n"
        "copy\n"
        f"  {STREAM}, positions of the prompt: becomes what it was in another run\n"
        f"  {STREAM}, position -1: becomes what silence makes of it"
    )
    assert str(model.edit(*edits)) == repr(model.edit(*edits)) == text


@pytest.mark.parametrize("pos", [None, "prompt", "generated", -1, [2, 17]])
def test_generation_is_the_same_with_and_without_a_cache(model, pos):
    edit = Intervention(STREAM, lambda part: part + direction(model), pos=pos)
    settings = {"max_new_tokens": 8, "do_sample": False, "stop_at_eos": False, "verbose": False}
    tokens = model.to_tokens(PROMPT)
    plain = model.generate(tokens, output_logits=True, **settings)
    with model.edit(edit):
        cached = model.generate(tokens, output_logits=True, **settings)
        whole = model.generate(tokens, use_past_kv_cache=False, output_logits=True, **settings)
        pieces = list(model.generate_stream(tokens, max_tokens_per_yield=3, **settings))
    assert cached.sequences.tolist() == whole.sequences.tolist() == torch.cat(pieces, 1).tolist()
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(whole.logits), rtol=1e-4, atol=1e-3)
    assert (torch.stack(cached.logits) - torch.stack(plain.logits)).abs().max() > 0.1
    assert model.prompt_length is None


def test_generated_positions_are_those_after_the_prompt(model):
    tokens, seen = model.to_tokens(PROMPT), []

    def note(part):
        seen.append(part.shape[1])
        return part

    settings = {"max_new_tokens": 4, "do_sample": False, "stop_at_eos": False, "verbose": False}
    with model.edit(Intervention(STREAM, note, pos="generated")):
        model.generate(tokens, **settings)
        assert seen == [1, 1, 1]  # the last new token is never run
        model(tokens)
        assert seen == [1, 1, 1]
        seen.clear()
        model.generate(tokens, use_past_kv_cache=False, **settings)
    assert seen == [1, 2, 3]


def test_left_padding_and_positions(model):
    texts = [PROMPT, "The Eiffel Tower is in"]
    with model.edit(Intervention(STREAM, "zero", pos=-1)):
        together = model(model.to_tokens(texts, padding_side="left"), padding_side="left")[:, -1]
        alone = torch.cat([model(text)[:, -1] for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    with (
        model.edit(Intervention(STREAM, "zero", pos=2)),
        pytest.raises(ValueError, match=r"position 2: becomes zero\. Some rows begin with padding"),
    ):
        model.generate(texts, verbose=False)


def test_a_sweep_under_an_edit_is_a_loop_under_it(model):
    tokens, metric = model.to_tokens(PROMPT), LogitDifference(5, 6)
    cells = [Intervention(f"blocks.{layer}.hook_resid_pre", "zero", pos=pos) for layer in range(4) for pos in (3, 9)]
    with model.edit(Intervention("blocks.1.hook_resid_pre", lambda part: part + direction(model), pos=[5, 10])):
        swept = sweep(model, tokens, cells, metric)
        looped = []
        for cell in cells:
            with model.edit(cell):
                looped.append(metric(model(tokens)))
    torch.testing.assert_close(swept, torch.stack(looped), rtol=1e-3, atol=1e-3)


def test_refuses(model):
    with pytest.raises(UnknownNameError, match=r"no hook point 'blocks.1.attn.hook_zz'.*Nearest: .*hook_z"):
        model.edit(Intervention("blocks.1.attn.hook_zz", "zero"))
    with pytest.raises(ValueError, match="What is to be edited"):
        model.edit()
    with pytest.raises(ValueError, match="One name, 'both', and 2 edits"):
        model.edit(Intervention(Z1, "zero"), Intervention(Z1, "zero"), name="both")
    with pytest.raises(ValueError, match="cannot be indexed by head"):
        model.edit(Intervention(STREAM, "zero", head=1))
    with pytest.raises(ValueError, match="becomes mean: that is for sweeps"):
        model.edit(Intervention(STREAM, "mean"))
    with unchecked(), pytest.raises(TypeError, match="An edit holds interventions; got tuple"):
        model.edit((Z1, silence))
    with model.edit(Intervention(STREAM, "zero", pos=99)), pytest.raises(ValueError, match="outside the 15 positions"):
        model(PROMPT)
    with (
        model.edit(Intervention(STREAM, torch.zeros(4, model.cfg.d_model))),
        pytest.raises(ValueError, match=r"a tensor of shape \(4, 128\). That does not fit here"),
    ):
        model(PROMPT)
    edited = model.edit(Intervention(Z1, "zero"))
    with edited, pytest.raises(ValueError, match="in force already"):
        edited.__enter__()
    assert model.edits == ()
    with unchecked(), pytest.raises(ValueError, match='pos is a number, several, "prompt"'):
        Intervention(STREAM, "zero", pos="last").positions(4)
    with pytest.raises(ValueError, match="nothing is generated in this run"):
        sweep(model, model.to_tokens(PROMPT), [Intervention(STREAM, "zero", pos="generated")], LogitDifference(5))


def test_gradients_flow_through_an_edit(model):
    scale = torch.ones((), requires_grad=True)
    with model.edit(Intervention(STREAM, lambda part: part * scale, pos=[3, 4])):
        loss = model(PROMPT, return_type="loss")
    (gradient,) = torch.autograd.grad(loss, scale)

    def at(value):
        with torch.no_grad(), model.edit(Intervention(STREAM, lambda part: part * value, pos=[3, 4])):
            return model(PROMPT, return_type="loss")

    torch.testing.assert_close(gradient, (at(1.01) - at(0.99)) / 0.02, rtol=0.02, atol=1e-4)


def test_what_is_in_force_prints_in_one_line_whatever_the_tensors(model):
    _, cache = model.run_with_cache(PROMPT)
    with model.edit(Intervention(STREAM, cache, pos=-1), name="other"):
        shown = repr(model.edits)
    assert shown == f"(Edit('other', [<Intervention {STREAM}, position -1: becomes what it was in another run>]),)"
