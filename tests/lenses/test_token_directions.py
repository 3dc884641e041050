"""Directions read as tokens: planted ones are found; singular vectors and neurons are those of the slow way."""

import pytest
import torch
from lens_models import DEMOS, demo_on, small

from annotations import unchecked
from toys import TOKENS, toy
from transformer_lens.cache.errors import UndefinedDecompositionError
from transformer_lens.lenses import neuron_directions, read_directions, singular_directions


@pytest.mark.parametrize("name", ["plain", "gated_grouped", "gpt2 bridge", "llama bridge", "gemma2 native"])
@torch.no_grad()
def test_what_a_written_direction_does_to_the_logits(name):
    """Added to the final stream, with the norm's scale held, it moves each logit by its value over the scale."""
    model = small(name)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(0))
    found = read_directions(model, direction, k=5)
    _, cache = model.run_with_cache(TOKENS)
    scale = cache["scale"][0, -1]
    moved = cache.logit_attrs(direction.expand(1, 2, 7, 16), found.top_ids[0, 0].item())[0, 0, -1]
    torch.testing.assert_close(found.top_values[0, 0] / scale[0], moved, atol=1e-5, rtol=1e-4)
    raw = read_directions(model, direction, fold_norm=False, k=31)
    torch.testing.assert_close(raw.top_values[0], (direction @ model.W_U).sort(descending=True).values)
    assert torch.equal(raw.top_ids[0], raw.bottom_ids[0].flip(0))
    assert (found.folded, raw.folded) == (True, False)


@pytest.mark.parametrize("host", DEMOS)
def test_embeddings_and_unembeddings_name_their_tokens(host):
    model = demo_on(host)
    ids = [model.to_single_token(word) for word in (" Paris", " Mary")]
    written = read_directions(model, model.W_U[:, ids].T, k=1, fold_norm=False, labels=["a", "b"])
    read = read_directions(model, model.W_E[ids], side="read", k=1)
    assert written.tokens() == read.tokens() == [[" Paris"], [" Mary"]]
    assert written.table()[0]["label"] == "a"
    assert "Paris" in written._repr_html_()


@pytest.mark.parametrize("name", ["plain", "gated_grouped", "gpt2 bridge", "llama bridge", "llama native"])
@torch.no_grad()
def test_singular_directions_rebuild_the_circuit(name):
    model, layer, head = small(name), 1, 2  # under two kv heads, of the second
    _, cache = model.run_with_cache(TOKENS)
    found = singular_directions(model, "OV", layer, head=head, k=4)
    rebuilt = found.reads.T @ torch.diag(found.values) @ found.writes
    # The stream through the norm and the circuit is what the head makes of it, value bias left out.
    stream, scale = cache["resid_pre", layer], cache["scale", layer, "ln1"]
    v = cache["v", layer][:, :, head * cache["v", layer].shape[2] // model.cfg.n_heads]
    attn = model.blocks[layer].attn
    b_V = attn.b_V[head * len(attn.b_V) // model.cfg.n_heads]
    norm = cache.readout.layers[layer].ln1
    if norm.b is None:
        expected = (v - b_V) @ attn.W_O[head]
        torch.testing.assert_close(stream / scale @ rebuilt, expected, atol=1e-4, rtol=1e-3)
    else:  # what the norm's bias adds is the same everywhere
        change = (stream / scale @ rebuilt) - (v @ attn.W_O[head])
        torch.testing.assert_close(change, change[:1, :1].expand_as(change), atol=1e-4, rtol=1e-3)
    scores = singular_directions(model, "QK", layer, head=head, k=4)
    assert scores.reads.shape == scores.keys.shape == (4, 16)
    assert scores.writes is None
    for circuit in ("W_in", "W_out"):
        rank = singular_directions(model, circuit, layer, k=16)
        side = rank.reads if circuit == "W_in" else rank.writes
        torch.testing.assert_close(side @ side.T, torch.eye(len(side)), atol=1e-4, rtol=1e-4)
    weight = model.blocks[layer].mlp.W_out
    torch.testing.assert_close(rank.values, torch.linalg.svdvals(weight)[:16], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_folding_the_norms_changes_no_reading():
    plain, folded = toy("gated_grouped"), toy("gated_grouped")
    folded.process_weights_(center_writing_weights=False, center_unembed=False)
    for circuit, head in (("OV", 2), ("QK", 2), ("W_in", None)):
        found, expected = (singular_directions(model, circuit, 0, head=head, k=3) for model in (plain, folded))
        torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.reads.abs(), expected.reads.abs(), atol=1e-3, rtol=1e-3)
    found, expected = (neuron_directions(model, 1, [3, 0], side="read") for model in (plain, folded))
    torch.testing.assert_close(found, expected)
    written = neuron_directions(plain, 1, [3, 0])
    assert torch.equal(written, plain.blocks[1].mlp.W_out[[3, 0]])
    found, expected = (read_directions(model, written[0], k=3) for model in (plain, folded))
    torch.testing.assert_close(found.top_values, expected.top_values)


def test_what_is_refused():
    model = demo_on("native")
    with unchecked(), pytest.raises(ValueError, match=r"through W_E\); got 'both'"):
        read_directions(model, torch.zeros(128), side="both")
    with unchecked(), pytest.raises(ValueError, match="does not meet"):
        read_directions(model, torch.zeros(128), side="read", fold_norm=False)
    with unchecked(), pytest.raises(ValueError, match=r"d_model=128; got \(3,\)"):
        read_directions(model, torch.zeros(3))
    with unchecked(), pytest.raises(ValueError, match="2 directions and 1 labels"):
        read_directions(model, torch.zeros(2, 128), labels=["a"])
    with unchecked(), pytest.raises(ValueError, match="W_in and W_out of none"):
        singular_directions(model, "OV", 0)
    with unchecked(), pytest.raises(ValueError, match="heads 0 to 3; got 4"):
        singular_directions(model, "QK", 0, head=4)
    with unchecked(), pytest.raises(ValueError, match="one of OV, QK, W_in, W_out; got 'VO'"):
        singular_directions(model, "VO", 0, head=1)
    with unchecked(), pytest.raises(UndefinedDecompositionError, match="mixture of experts"):
        neuron_directions(toy("experts"), 0, [1])
