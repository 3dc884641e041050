"""Parts as logits: logit_attrs sums to the logits, logit_lens ends with them."""

import pytest
import torch
from cache_models import MODELS, cache_of, close, model_of, run_of

from annotations import unchecked
from toys import TOKENS
from transformer_lens.errors import UnknownNameError


def uncapped(model, logits):
    cap = model.cfg.output_logits_soft_cap
    return cap * torch.atanh(logits / cap) if cap > 0 else logits


def written_by_nobody(model):
    """What the biases of the unembedding and of the final norm add to each logit."""
    norm = run_of(model)[1].readout.ln_final
    through_norm = 0 if norm is None or norm.b is None else norm.b @ model_of(model).W_U
    return model_of(model).b_U + through_norm


@pytest.mark.parametrize("model", MODELS)
def test_attributions_sum_to_the_logits_that_are_written(model):
    logits, cache = run_of(model)
    written = uncapped(model_of(model), logits) - written_by_nobody(model)
    stack = cache.decompose_resid()
    tolerance = 1e-3 if model_of(model).cfg.output_logits_soft_cap > 0 else 5e-5
    close(cache.logit_attrs(stack, 5).sum(0), written[..., 5], tolerance)
    close(cache.logit_attrs(stack, 5, 9).sum(0), written[..., 5] - written[..., 9], tolerance)
    of_rows = torch.tensor([5, 11])
    close(cache.logit_attrs(stack, of_rows).sum(0), torch.stack([written[0, :, 5], written[1, :, 11]]), tolerance)
    close(cache.logit_attrs(stack, TOKENS, 9).sum(0), written.gather(-1, TOKENS[..., None])[..., 0] - written[..., 9],
          tolerance)  # fmt: skip


@pytest.mark.parametrize("model", ["plain", "gated_grouped", "final_rms", "attn_only"])
def test_tokens_of_the_whole_run_or_of_what_is_picked(model):
    _, cache = run_of(model)
    everywhere = cache.logit_attrs(cache.decompose_resid(), TOKENS)
    stack = cache.decompose_resid(pos_slice=(2, 6))
    for tokens in (TOKENS, TOKENS[:, 2:6]):
        close(cache.logit_attrs(stack, tokens, pos_slice=(2, 6)), everywhere[:, :, 2:6])
        close(cache.logit_attrs(stack, tokens, pos_slice=(2, 6), batch_slice=1), everywhere[:, 1, 2:6])
    last = cache.decompose_resid(pos_slice=-1)
    for tokens in (TOKENS, TOKENS[:, -1]):
        close(cache.logit_attrs(last, tokens, pos_slice=-1), everywhere[:, :, -1])
        close(cache.logit_attrs(last, tokens, pos_slice=-1, batch_slice=[1]), everywhere[:, 1:, -1])
        close(cache.logit_attrs(last, tokens, pos_slice=-1, batch_slice=1), everywhere[:, 1, -1])
    row = cache.decompose_resid()[:, 1]
    close(cache.logit_attrs(row, TOKENS[1], batch_slice=1, has_batch_dim=False), everywhere[:, 1])


def test_a_token_for_each_row_is_not_a_token_for_each_position():
    # As many rows as positions: shapes alone would not tell.
    model = model_of("plain")
    tokens = torch.randint(0, 31, (7, 7), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    wanted = (logits - written_by_nobody("plain")).gather(-1, tokens[:, -1:, None].expand(-1, 7, 1))[..., 0]
    close(cache.logit_attrs(cache.decompose_resid(), tokens[:, -1]).sum(0), wanted, 5e-5)


def test_without_batch_axis_tokens_are_of_positions():
    with torch.no_grad():
        _, cache = model_of("plain").run_with_cache(TOKENS[:1], remove_batch_dim=True)
    wanted = run_of("plain")[1].logit_attrs(run_of("plain")[1].decompose_resid(), TOKENS)[:, 0]
    close(cache.logit_attrs(cache.decompose_resid(), TOKENS[0], has_batch_dim=False), wanted)
    close(cache.logit_attrs(cache.decompose_resid(pos_slice=[1, 4]), TOKENS[0], pos_slice=[1, 4]), wanted[:, [1, 4]])


def test_tokens_that_do_not_fit():
    _, cache = run_of("plain")
    stack = cache.decompose_resid()
    with pytest.raises(ValueError, match=r"tokens of shape \(3,\) do not fit .* axes \(2, 7\)"):
        cache.logit_attrs(stack, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="has shape"):
        cache.logit_attrs(stack[None], 3)
    with unchecked(), pytest.raises(ValueError, match=r"tokens are one id, \[batch\] or \[batch, pos\]"):
        cache.logit_attrs(stack, torch.ones(2, 7, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"has_batch_dim=False: .* holds 2"):
        cache.logit_attrs(stack[:, 0], 3, has_batch_dim=False)


def test_a_stack_is_normalised_as_the_stream_is():
    _, cache = run_of("plain")
    stack = cache.decompose_resid(1)
    close(cache.apply_ln_to_stack(stack, 1).sum(0), cache["normalized", 1, "ln1"])
    whole = cache.apply_ln_to_stack(cache["resid_pre", 1][None], 1, recompute_ln=True)
    norm = model_of("plain").blocks[1].ln1
    close(whole[0], norm(cache["resid_pre", 1]).detach())
    # Where there is no norm, nothing is done.
    _, cache = run_of("attn_only")
    close(cache.apply_ln_to_stack(cache.decompose_resid()), cache.decompose_resid(), 0)


# --- the logit lens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["plain", "norms_around", "final_rms", "gated_grouped folded", "attn_only"])
def test_the_lens_ends_with_the_logits(model):
    logits, cache = run_of(model)
    result = cache.logit_lens(positions=None)
    assert result.labels == ["0_pre", "1_pre", "final_post"]
    assert result.has_batch_dim
    close(result.values[-1], logits)
    close(result.readout.entropy[-1], torch.distributions.Categorical(logits=logits).entropy())
    close(cache.logit_lens().values[-1], logits[:, -1])
    close(cache.logit_lens(positions=(1, 3), batch_slice=1, chunk_size=1).values[-1], logits[1, 1:3])
    inner = model_of(model)(cache["resid_pre", 1], start_at_layer=2)
    close(cache.logit_lens(positions=None, layers=[1]).values[0], inner.detach())


def test_parts_of_the_vocabulary():
    logits, cache = run_of("plain")
    log_probs = logits.log_softmax(-1)
    result = cache.logit_lens(positions=None, vocab=[4, 2], return_type="log_probs")
    close(result.values[-1], log_probs[..., [4, 2]])
    assert result.readout.vocab_ids.tolist() == [4, 2]
    best = cache.logit_lens(positions=None, top_k=3, return_type="probs", chunk_size=5)
    close(best.values[-1], log_probs.exp().topk(3).values)
    assert torch.equal(best.readout.top_ids[-1], logits.topk(3).indices)


def test_ranks_count_likelier_tokens():
    logits, cache = run_of("plain")
    first, last = int(logits[0, -1].argmax()), int(logits[0, -1].argmin())
    result = cache.logit_lens(targets=[first, last])
    assert result.rank_trajectory(first)[-1, 0] == 0
    assert result.rank_trajectory(last)[-1, 0] == 30
    assert result.readout.target_ranks.shape == (3, 2, 2)


def test_layers_mids_lenses_and_gradients():
    _, cache = run_of("plain")
    assert cache.logit_lens(layers=[-1, 0]).labels == ["final_post", "0_pre"]
    assert cache.logit_lens(incl_mid=True).labels == ["0_pre", "0_mid", "1_pre", "1_mid", "final_post"]
    seen = []
    cache.logit_lens(lens=lambda stream, layer: seen.append(layer) or stream, incl_mid=True)
    assert seen == [0, 0, 1, 1]  # the final stream is read as it is
    stream = cache["resid_post", 1].clone().requires_grad_()
    cache = type(cache)({**cache, "blocks.1.hook_resid_post": stream}, cache.model)
    assert not cache.logit_lens().values.requires_grad
    cache.logit_lens(enable_grad=True).values[-1].sum().backward()
    assert stream.grad[:, -1].abs().max() > 0


class Letters:
    def decode(self, ids):
        return chr(97 + ids[0])


def test_likeliest_tokens_as_text():
    logits, cache = run_of("plain")
    words = cache.logit_lens(top_k=2).top_tokens(Letters())
    assert words["final_post"] == [[chr(97 + i) for i in row] for row in logits[:, -1].topk(2).indices.tolist()]


def test_what_the_lens_refuses():
    cache = cache_of("plain")
    with unchecked(), pytest.raises(ValueError, match='"logits", "probs" or "log_probs"; got \'ranks\''):
        cache.logit_lens(return_type="ranks")
    with pytest.raises(ValueError, match="not both"):
        cache.logit_lens(top_k=2, vocab=[1])
    with pytest.raises(ValueError, match="chunk_size is at least 1; got 0"):
        cache.logit_lens(chunk_size=0)
    with pytest.raises(ValueError, match="layers are from 0 to 2"):
        cache.logit_lens(layers=[3])
    with pytest.raises(ValueError, match="layers is empty"):
        cache.logit_lens(layers=[])
    with pytest.raises(ValueError, match="No targets"):
        cache.logit_lens().rank_trajectory()
    with pytest.raises(ValueError, match="No likeliest"):
        cache.logit_lens().top_tokens(Letters())
    del cache.cache_dict["blocks.1.hook_resid_pre"]
    with pytest.raises(UnknownNameError, match=r"blocks\.1\.hook_resid_pre.*names_filter"):
        cache.logit_lens()
    assert cache.logit_lens(layers=[0, 2]).labels == ["0_pre", "final_post"]
