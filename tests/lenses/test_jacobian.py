"""The Jacobian lens against forward-mode derivatives and finite differences, and what it refuses."""

import math

import pytest
import torch
from lens_models import DEMOS, DIRECTION, SMALL_MODELS, demo_on, documents, exact, small

from annotations import unchecked
from toys import TOKENS
from transformer_lens import HookedTransformer
from transformer_lens.lenses import JacobianLens, jacobian_lens, logit_lens, mean_kl

ROWS = [torch.arange(3, 14), torch.arange(12, 3, -1)]


def fit(model, rows=ROWS, **options):
    options = {"corpus": "counting", "skip_first_positions": 2, "show_progress": False} | options
    return JacobianLens.fit(model, rows, **options)


def by_forward_mode(model, tokens, *, layer, skip):
    """The Jacobian that a fit means, from the derivatives of all final streams by all streams entering a layer."""
    with torch.no_grad():
        stream = model(tokens[None], stop_at_layer=layer)
    full = torch.autograd.functional.jacobian(
        lambda x: model(x, start_at_layer=layer, stop_at_layer=model.cfg.n_layers)[0], stream
    )[:, :, 0]  # [target, out, source, in]
    counted = slice(skip, len(tokens) - 1)
    return full[counted][:, :, counted].sum(0).mean(1)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_fit_is_the_mean_over_prompts_of_all_later_derivatives(name):
    model = small(name)
    lens = fit(model)
    assert (lens.source_layers, lens.n_prompts, lens.d_model) == ([0], 2, 16)
    for layer, found in ((0, lens.embedding), (1, lens.jacobians[0])):
        expected = torch.stack([by_forward_mode(model, row, layer=layer, skip=2) for row in ROWS]).mean(0)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["plain", "llama bridge"])
def test_where_one_position_counts_a_fit_is_the_lens_of_that_position(name):
    model = small(name)
    one = fit(model, [ROWS[0][:7]], skip_first_positions=5)
    point = jacobian_lens(model, ROWS[0][:7], 5)
    torch.testing.assert_close(one.jacobians, point.jacobians)
    torch.testing.assert_close(one.embedding, point.embedding)


@pytest.mark.parametrize("name", ["plain", "gated_grouped", "attn_only", "llama bridge", "gpt_neox bridge"])
def test_a_jacobian_at_a_point_moves_the_final_stream(name):
    model, step, tolerance = exact(name)
    lens = jacobian_lens(model, TOKENS[0], 3)
    for layer in range(2):
        with torch.no_grad():
            stream = model(TOKENS[:1], stop_at_layer=layer)
            ends = []
            for sign in (1, -1):
                moved = stream.clone()
                moved[:, 3] += sign * step * DIRECTION.to(moved)
                ends.append(model(moved, start_at_layer=layer, stop_at_layer=2)[0, 3])
        torch.testing.assert_close(
            lens(DIRECTION, layer), ((ends[0] - ends[1]) / (2 * step)).float(), atol=10 * tolerance, rtol=10 * tolerance
        )


@pytest.mark.parametrize("name", ["plain", "gpt2 bridge"])
def test_a_dataset_is_the_mean_of_its_points(name):
    model = small(name)
    together = jacobian_lens(model, TOKENS, torch.tensor([3, -1]))
    points = [jacobian_lens(model, TOKENS[row], pos) for row, pos in ((0, 3), (1, -1))]
    merged = JacobianLens.merge(points)
    apart = jacobian_lens(model, TOKENS, torch.tensor([3, -1]), batch_size=1)
    assert merged.n_prompts == together.n_prompts == 2
    for other in (merged, apart):
        torch.testing.assert_close(other.jacobians, together.jacobians, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(other.embedding, together.embedding, atol=1e-5, rtol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


@pytest.mark.parametrize("host", DEMOS)
def test_it_is_nearer_to_the_end_than_the_logit_lens(host):
    """What the logit lens leaves out, later layers' first order, is there: on other texts KL is less at every layer."""
    model, texts = demo_on(host), documents(1, 48)
    positions = torch.randint(4, texts.shape[1], (48,), generator=torch.Generator().manual_seed(0))
    lens = jacobian_lens(model, texts, positions, batch_size=48)
    held_out = documents(2, 16)
    assert (mean_kl(model, held_out, lens)[:-1] < 0.85 * mean_kl(model, held_out)[:-1]).all()


def test_prompts_too_short_are_left_out_and_said():
    model = small("plain")
    with pytest.warns(UserWarning, match="1 of 3 prompts are left out: they have no more than 3 tokens"):
        lens = fit(model, [*ROWS, torch.arange(3)])
    assert lens.n_prompts == lens.metadata["n_prompts"] == 2
    with pytest.raises(ValueError, match=r"of 1, none is longer than skip_first_positions \+ 1 = 17 tokens"):
        fit(model, ROWS[:1], skip_first_positions=16)
    torch.testing.assert_close(fit(model, max_seq_len=8).jacobians, fit(model, [row[:8] for row in ROWS]).jacobians)


def test_layers_of_a_fit():
    model = HookedTransformer({"n_layers": 4, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20, "seed": 0})
    whole = fit(model)
    assert whole.source_layers == [0, 1, 2]
    part = fit(model, source_layers=[-2, 0, 0])
    assert (part.source_layers, part.embedding) == ([0, 2], None)
    torch.testing.assert_close(part.jacobians[2], whole.jacobians[2])
    torch.testing.assert_close(fit(model, source_layers=[1], embedding=True).embedding, whole.embedding)
    assert fit(model, embedding=False).embedding is None
    for wrong in ([3], [-1], [9], []):
        with pytest.raises(ValueError, match="blocks before the last: 0 to 2 of 4 layers"):
            fit(model, source_layers=wrong)
    with pytest.raises(ValueError, match="enters layer 0: fit it with embedding=True"):
        logit_lens(model, ROWS[0], lens=part)
    with pytest.raises(ValueError, match=r"no layer 1; it has \[0, 2\]"):
        part.transport(torch.ones(8), 1)


@pytest.mark.parametrize("host", DEMOS)
def test_readouts_are_what_the_logit_lens_reads_with_it(host):
    model, prompt = demo_on(host), "The Eiffel Tower is in"
    lens = jacobian_lens(model, prompt)
    rows = logit_lens(model, prompt, lens=lens, top_k=3)
    read = lens.readout(model, prompt, top_k=3)
    for layer in range(model.cfg.n_layers):
        assert torch.equal(read.lens_topk_indices[layer], rows.top_ids[layer + 1, 0])
    plain = lens.readout(model, prompt, use_jacobian=False, layers=[1])
    assert torch.equal(plain.lens_topk_indices[1][:, 0], logit_lens(model, prompt).top_tokens[2, 0])
    assert read.top_tokens(model.tokenizer, k=1)[3][-1] == [" Paris"]


def test_a_lens_without_a_record_learns_where_the_end_is():
    model = small("plain")
    fitted = fit(model)
    assert torch.equal(fitted(DIRECTION, 2), DIRECTION)
    bare = JacobianLens(fitted.jacobians, n_prompts=2, d_model=16, embedding=fitted.embedding)
    with pytest.raises(ValueError, match=r"enters layer 2. If that is the final stream, .* lens.validate_model"):
        logit_lens(model, TOKENS, lens=bare)
    found = logit_lens(model, TOKENS, lens=bare.validate_model(model))
    assert torch.equal(found.probabilities, logit_lens(model, TOKENS, lens=fitted).probabilities)


def test_what_a_fit_refuses():
    model = small("plain")
    refused = [
        ({"corpus": ""}, "corpus names the prompts"),
        ({"dim_batch": 0}, "dim_batch is at least 1"),
        ({"max_seq_len": 0}, "max_seq_len at least 1"),
        ({"skip_first_positions": -1}, "skip_first_positions is at least 0"),
        ({"metadata": {"corpus": "x", "a": 1}}, "what the fit says itself: corpus"),
        ({"metadata": {"a": {"b": [1, torch.ones(1)]}}}, r"metadata.a.b\[1\] is a Tensor"),
    ]
    for options, said in refused:
        with pytest.raises(ValueError, match=said):
            fit(model, **options)
    with unchecked(), pytest.raises(ValueError, match=r"got one text. Put it in a list"):
        fit(model, "a b c")
    bridge = small("gpt2 bridge")
    bridge.train()
    try:
        with pytest.raises(ValueError, match=r"training mode.*model.eval\(\)"):
            fit(bridge)
    finally:
        bridge.eval()


def test_a_lens_of_another_model():
    model, eye = small("plain"), torch.eye(16)
    refused = [
        (JacobianLens({0: torch.eye(4)}, n_prompts=1, d_model=4), "of width 4, the model of width 16"),
        (JacobianLens({1: eye}, n_prompts=1, d_model=16), r"has layers \[1\]; .* from 0 to 0"),
        (JacobianLens({0: eye}, n_prompts=1, d_model=16, metadata={"target_layer": 5}), "output of block 5"),
    ]
    for lens, said in refused:
        with pytest.raises(ValueError, match=said):
            lens.readout(model, TOKENS[:1])
    named = JacobianLens({0: eye}, n_prompts=1, d_model=16, metadata={"model_name": "gpt2-small"})
    assert (
        named.validate_model(small("gpt2 bridge")) is named if small("gpt2 bridge").cfg.model_name == "gpt2" else True
    )
    other = JacobianLens({0: eye}, n_prompts=1, d_model=16, metadata={"model_name": "other"})
    with pytest.raises(ValueError, match="fitted to 'other'; the model is"):
        other.validate_model(small("gpt2 native"))
    with pytest.raises(TypeError, match="HookedTransformer or a TransformerBridge; got a Linear"):
        named.validate_model(torch.nn.Linear(2, 2))


def test_what_makes_no_lens():
    for jacobians, said in (({}, "at least one layer"), ({0: torch.eye(3)}, r"jacobians\[0\] has shape \[4, 4\]; got")):
        with pytest.raises(ValueError, match=said):
            JacobianLens(jacobians, n_prompts=1, d_model=4)
    with pytest.raises(ValueError, match="no lens to merge"):
        JacobianLens.merge([])
    one = JacobianLens({0: torch.eye(4)}, n_prompts=1, d_model=4, metadata={"corpus": "a"})
    with pytest.raises(ValueError, match="same layers and width"):
        JacobianLens.merge([one, JacobianLens({1: torch.eye(4)}, n_prompts=1, d_model=4)])
    with pytest.raises(ValueError, match="different things of corpus"):
        JacobianLens.merge([one, JacobianLens({0: torch.eye(4)}, n_prompts=1, d_model=4, metadata={"corpus": "b"})])


def test_what_is_not_read():
    model, lens = small("plain"), jacobian_lens(small("plain"), TOKENS)
    refused = [
        ({"layers": [5]}, r"layers are one or more of \[0, 1\]"),
        ({"layers": []}, "layers are one or more"),
        ({"positions": [99]}, "positions are one or more from -"),
        ({"positions": []}, "positions are one or more"),
        ({"top_k": 0}, "top_k is from 1 to the size of the vocabulary"),
    ]
    for options, said in refused:
        with pytest.raises(ValueError, match=said):
            lens.readout(model, TOKENS[:1], **options)
    with pytest.raises(ValueError, match="One prompt at a time"):
        lens.readout(model, TOKENS)
    read = lens.readout(model, TOKENS[:1], top_k=2)
    with pytest.raises(ValueError, match="k is from 1 to the top_k that was read, 2; got 3"):
        read.top_tokens(None, k=3)
    with pytest.raises(ValueError, match="Without a tokenizer"):
        read.top_tokens(None, k=1)


def test_shares_of_variance_where_there_is_nothing():
    lens = jacobian_lens(small("plain"), TOKENS)
    profile = lens.fraction_of_variance(small("plain"), TOKENS[:1], k=2, skip_first=99)
    assert math.isnan(profile.median[0])
    assert math.isnan(profile.pooled[0])
    for options, said in (({"skip_first": -1}, "skip_first ≥ 0"), ({"positions": [99]}, "positions are one or more")):
        with pytest.raises(ValueError, match=said):
            lens.fraction_of_variance(small("plain"), TOKENS[:1], k=2, **options)
