"""Laws of the lenses, on the embedded model."""

import pytest
import torch

from transformer_lens import HookedTransformer, demo
from transformer_lens.lenses import head_attribution, head_scores, logit_lens


@pytest.fixture(scope="module", params=["processed", "as trained"])
def model(request):
    if request.param == "processed":
        return HookedTransformer.from_pretrained("demo")
    return HookedTransformer.from_pretrained_no_processing("demo")


def test_last_row_of_the_logit_lens_is_the_models_own_prediction(model):
    prompts = demo.ioi(4, seed=0)
    logits, cache = model.run_with_cache(prompts.tokens)
    lens = logit_lens(model, cache)
    assert lens.labels[0] == "0_pre"
    assert lens.labels[-1] == "final_post"
    assert torch.equal(lens.top_tokens[-1], logits.argmax(-1))
    torch.testing.assert_close(lens.top_probabilities[-1], logits.softmax(-1).amax(-1))
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(lens.entropy[-1], entropy, atol=1e-4, rtol=1e-4)
    assert lens.kl_to_final[-1].abs().max() == 0
    assert lens.kl_to_final[:-1].min() > -1e-5


def test_head_attribution_and_everything_else_sum_to_the_logit_difference(model):
    prompts = demo.ioi(4, seed=1)
    logits, cache = model.run_with_cache(prompts.tokens)
    heads = head_attribution(model, cache, prompts.answer_tokens, prompts.wrong_tokens).sum((1, 2))
    # What is not a head: embeddings, MLPs and biases, through the same norm.
    rest = cache["embed"][:, -1] + cache["pos_embed"][:, -1]
    for layer in range(model.cfg.n_layers):
        rest = rest + cache["mlp_out", layer][:, -1] + model.b_O[layer]
    rest = (rest - rest.mean(-1, keepdim=True)) / cache["scale"][:, -1] * model.ln_final.w
    direction = (model.W_U[:, prompts.answer_tokens] - model.W_U[:, prompts.wrong_tokens]).T
    biases = model.ln_final.b @ direction.T + model.b_U[prompts.answer_tokens] - model.b_U[prompts.wrong_tokens]
    rows = torch.arange(4)
    difference = logits[rows, -1, prompts.answer_tokens] - logits[rows, -1, prompts.wrong_tokens]
    torch.testing.assert_close(heads + (rest * direction).sum(-1) + biases, difference, atol=1e-3, rtol=1e-4)


def test_head_scores_are_attention_to_the_right_places(model):
    length, batch = 10, 3
    scores = head_scores(model, length=length, batch=batch, seed=3)
    generator = torch.Generator().manual_seed(3)
    half = torch.randint(0, model.cfg.d_vocab, (batch, length), generator=generator)
    tokens = torch.cat([torch.full((batch, 1), model.codec.bos_id), half, half], 1)
    _, cache = model.run_with_cache(tokens)
    for layer, head in ((0, 0), (1, 2), (3, 3)):
        pattern = cache["pattern", layer][:, head]
        queries = range(length + 1, 2 * length + 1)
        for scored, distance in (
            (scores.previous_token, 1),
            (scores.duplicate_token, length),
            (scores.induction, length - 1),
        ):
            expected = torch.stack([pattern[:, q, q - distance] for q in queries]).mean()
            torch.testing.assert_close(scored[layer, head], expected)


def test_head_scores_say_what_does_not_fit(model):
    with pytest.raises(ValueError, match="do not fit n_ctx=128"):
        head_scores(model, length=64)
