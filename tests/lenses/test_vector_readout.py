"""Vectors read in the vocabulary: the model's own logits, and the logit lens with all its arguments."""

import pytest
import torch
from lens_models import DEMOS, demo_on

from annotations import unchecked
from transformer_lens.lenses import logit_lens, logit_readout
from transformer_lens.lenses.readout import logit_lens_result

TEXT = "The Eiffel Tower is in"


@pytest.mark.parametrize("host", DEMOS)
@torch.no_grad()
def test_the_final_stream_reads_as_the_models_logits(host):
    model = demo_on(host)
    logits, cache = model.run_with_cache(TEXT)
    found = logit_readout(model, cache["resid_post", -1], targets=[" Paris", " Rome"], chunk_size=2)
    torch.testing.assert_close(found.values, logits, atol=1e-4, rtol=1e-4)
    log_probs = logits.log_softmax(-1)
    torch.testing.assert_close(found.entropy, -(log_probs.exp() * log_probs).sum(-1), atol=1e-4, rtol=1e-4)
    paris = logits[..., model.to_single_token(" Paris")]
    assert torch.equal(found.target_ranks[..., 0], (logits > paris[..., None]).sum(-1))
    raw = logit_readout(model, cache["ln_final.hook_normalized"], apply_ln=False)
    assert (found.applied_ln, raw.applied_ln) == (True, False)


def test_the_selected_tokens_are_named():
    model = demo_on("native")
    vectors = model.W_U[:, :3].T.detach()
    best = logit_readout(model, vectors, top_k=2, return_type="probs")
    assert torch.equal(best.selected_ids, best.top_ids)
    assert torch.equal(best.row_ids((1,)), best.top_ids[1])
    assert best.decode(model.tokenizer)[2][0] == model.tokenizer.decode([int(best.top_ids[2, 0])])
    some = logit_readout(model, vectors, vocab=[4, 7])
    assert some.row_ids((0,)).tolist() == [4, 7]
    whole = logit_readout(model, vectors)
    assert whole.row_ids((0,)) is None
    with pytest.raises(ValueError, match="whole vocabulary: give vocab"):
        whole.decode(model.tokenizer)
    with unchecked(), pytest.raises(ValueError, match=r"is 128 wide; got vectors \(2, 5\)"):
        logit_readout(model, torch.ones(2, 5))
    with pytest.raises(ValueError, match="chunk_size is at least 1"):
        logit_readout(model, vectors, chunk_size=0)


@pytest.mark.parametrize("host", DEMOS)
def test_a_text_a_cache_and_a_cache_alone_read_the_same(host):
    model = demo_on(host)
    _, cache = model.run_with_cache(TEXT)
    found = logit_lens_result(model, TEXT, incl_mid=True, top_k=2, return_type="probs", positions=None)
    for other in (
        logit_lens_result(model, cache=cache, incl_mid=True, top_k=2, return_type="probs", positions=None),
        logit_lens_result(cache, incl_mid=True, top_k=2, return_type="probs", positions=None),
    ):
        assert other.labels == found.labels
        torch.testing.assert_close(other.values, found.values)
    torch.testing.assert_close(found.values, logit_lens(model, TEXT, incl_mid=True, top_k=2).probabilities)
    with pytest.raises(ValueError, match="one of input and cache, or a cache alone; got 2"):
        logit_lens_result(model, TEXT, cache=cache)


def test_targets_are_followed_by_name_and_by_place():
    model = demo_on("native")
    found = logit_lens_result(model, TEXT, targets=[" Rome", " Paris"])
    assert found.target_names == [" Rome", " Paris"]
    assert torch.equal(found.rank_trajectory(" Paris"), found.rank_trajectory(1))
    assert torch.equal(found.rank_trajectory(), found.readout.target_ranks[..., 0])
    with pytest.raises(ValueError, match=r"The targets are .*; got ' Oslo'"):
        found.rank_trajectory(" Oslo")


@pytest.mark.parametrize(("positions", "axes"), [(-1, ["batch"]), (None, ["batch", "position"])])
def test_the_table_has_every_value(positions, axes):
    pytest.importorskip("pandas")
    model = demo_on("native")
    found = logit_lens_result(model, [TEXT, TEXT], positions=positions, vocab=[4, 7, 9], return_type="log_probs")
    table = found.to_dataframe(model.tokenizer)
    assert list(table.columns) == ["layer", *axes, "rank", "token_id", "token", "log_probs"]
    assert len(table) == found.values.numel()
    assert table["log_probs"].tolist() == found.values.flatten().tolist()
    best = found.to_dataframe(top_k=1)
    assert best["log_probs"].tolist() == found.values.amax(-1).flatten().tolist()
    assert best["token_id"].tolist() == [(4, 7, 9)[place] for place in found.values.argmax(-1).flatten().tolist()]
