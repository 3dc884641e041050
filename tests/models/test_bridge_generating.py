"""Generation on the wrapped host: transformers' own, with hooks active under its cache."""

import pytest
import torch
from families import hf_model, tokens
from transformers import GenerationConfig, StoppingCriteria

from transformer_lens import TransformerBridge

GREEDY = {"max_new_tokens": 5, "do_sample": False, "verbose": False}
CHOSEN = ("gpt2", "llama", "gemma2", "bloom", "mpt", "falcon (7b)", "gpt_oss")


@pytest.fixture(scope="module")
def demo():
    return TransformerBridge.boot_transformers("demo", device="cpu")


@pytest.mark.parametrize("row", CHOSEN)
def test_greedy_generation_is_transformers_own(row):
    model = hf_model(row)
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    own = model.generate(tokens(), attention_mask=torch.ones_like(tokens()), max_new_tokens=5, do_sample=False,
                         eos_token_id=None, pad_token_id=0)  # fmt: skip
    settings = model.generation_config
    assert torch.equal(bridge.generate(tokens(), stop_at_eos=False, **GREEDY), own)
    assert model.generation_config is settings


@pytest.mark.parametrize("row", CHOSEN)
def test_steering_gives_the_same_with_and_without_the_cache(row):
    bridge = TransformerBridge.boot_transformers(hf_model=hf_model(row))
    direction = torch.randn(bridge.cfg.d_model, generator=torch.Generator().manual_seed(0)) * 5

    def steer(activation, hook):
        return activation + direction

    plain = bridge.generate(tokens(), stop_at_eos=False, **GREEDY)
    with bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_post", steer)]):
        steered = bridge.generate(tokens(), stop_at_eos=False, **GREEDY)
        again = bridge.generate(tokens(), stop_at_eos=False, use_past_kv_cache=False, **GREEDY)
    assert torch.equal(steered, again)
    assert not torch.equal(steered, plain)


def test_patterns_can_be_hooked_while_generating(demo):
    shapes = []

    def note(pattern, hook):
        shapes.append(tuple(pattern.shape[-2:]))

    with demo.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", note)]):
        demo.generate("The Eiffel Tower is in", stop_at_eos=False, **{**GREEDY, "max_new_tokens": 3})
    length = demo.to_tokens("The Eiffel Tower is in").shape[1]
    assert shapes == [(length, length), (1, length + 1), (1, length + 2)]


def test_texts_of_several_lengths_give_what_each_gives_alone(demo):
    texts = ["The Eiffel Tower is in", "Then, Mary and John went to the store. Mary gave a book to"]
    assert demo.generate(texts, **GREEDY) == [demo.generate(text, **GREEDY) for text in texts]
    assert demo.hf_generate(texts, max_new_tokens=5, do_sample=False) == demo.generate(texts, **GREEDY)


def test_a_stream_is_the_text_in_pieces(demo):
    pieces = list(demo.generate_stream("The Eiffel Tower is in", max_tokens_per_yield=2, **GREEDY))
    assert "".join(pieces) == demo.generate("The Eiffel Tower is in", **GREEDY)


def test_an_unknown_setting_is_refused(demo):
    with pytest.raises(ValueError, match="no_such_setting"):
        demo.generate("The", no_such_setting=1, **GREEDY)


PROMPT = "The Eiffel Tower is in"


class After(StoppingCriteria):
    """Ends all rows after so many calls."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self, input_ids, scores, **kwargs):
        self.left -= 1
        return torch.full((input_ids.shape[0],), self.left <= 0)


def test_arguments_by_position_are_in_the_order_of_4_3(demo):
    ids = demo.to_tokens(PROMPT)
    given = (ids, 3, False, None, False, None, None, 1.0, 0.0, 1.5, True)
    expected = demo.generate(ids, max_new_tokens=3, stop_at_eos=False, do_sample=False, repetition_penalty=1.5)
    assert torch.equal(demo.generate(*given), expected)
    pieces = list(demo.generate_stream(ids, 3, 2, False, None, False, None, None, 1.0, 0.0, 1.5, True, verbose=False))
    assert torch.equal(torch.cat(pieces, 1), expected)
    own = demo.hf_generate(ids, 3, False, None, False)
    assert torch.equal(own, demo.generate(ids, stop_at_eos=False, **{**GREEDY, "max_new_tokens": 3}))


def test_a_cache_of_all_tokens_and_the_prompt_come_back(demo):
    asked = {"return_cache": True, "return_input_tokens": True, "names_filter": "ln_final.hook_out", "device": "cpu"}
    text, cache, prompt = demo.generate(PROMPT, **asked, **GREEDY)
    assert text == demo.generate(PROMPT, **GREEDY)
    assert torch.equal(prompt, demo.to_tokens(PROMPT))
    ids = demo.generate(PROMPT, return_type="tokens", **GREEDY)
    _, expected = demo.run_with_cache(ids, names_filter="ln_final.hook_out")
    assert list(cache) == ["ln_final.hook_out"]
    assert torch.equal(cache["ln_final.hook_out"], expected["ln_final.hook_out"])
    output, prompt = demo.generate(PROMPT, output_logits=True, return_input_tokens=True, **GREEDY)
    assert torch.equal(output.sequences, ids)
    with pytest.raises(ValueError, match="names_filter has no effect without return_cache=True"):
        demo.generate(PROMPT, names_filter="ln_final.hook_out", **GREEDY)
    with pytest.raises(ValueError, match="Embeddings have no tokens"):
        demo.generate(demo.input_to_embed(PROMPT)[0], return_type="tokens", return_cache=True, **GREEDY)


def test_the_cache_of_a_padded_batch_is_that_of_each_row(demo):
    texts = [PROMPT, "Then, Mary and John went to the store. Mary gave a book to"]
    _, cache = demo.generate(texts, return_cache=True, stop_at_eos=False, **GREEDY)
    _, alone = demo.generate(texts[0], return_cache=True, stop_at_eos=False, **GREEDY)
    length = alone["resid_post", -1].shape[1]
    torch.testing.assert_close(cache["resid_post", -1][:1, -length:], alone["resid_post", -1], rtol=1e-4, atol=1e-4)


def test_criteria_end_a_row(demo):
    ids = demo.to_tokens(PROMPT)
    settings = {**GREEDY, "max_new_tokens": 6, "stop_at_eos": False}
    whole = demo.generate(ids, **settings)
    assert torch.equal(demo.generate(ids, stopping_criteria=After(2), **settings), whole[:, : ids.shape[1] + 2])
    assert torch.equal(
        demo.generate(ids, stopping_criteria=[After(4), After(3)], **settings), whole[:, : ids.shape[1] + 3]
    )
    for per_yield in (1, ids.shape[1] + 2, 25):
        pieces = demo.generate_stream(ids, max_tokens_per_yield=per_yield, stopping_criteria=After(2), **settings)
        assert torch.equal(torch.cat(list(pieces), 1), whole[:, : ids.shape[1] + 2])
    with pytest.raises(ValueError, match="for streams of one row"):
        list(demo.generate_stream(ids.repeat(2, 1), stopping_criteria=After(2), **settings))


def test_a_text_ends_a_stream(demo):
    settings = {**GREEDY, "max_new_tokens": 6, "stop_at_eos": False}
    whole = demo.generate(PROMPT, **settings)
    word = whole.removeprefix(PROMPT).split()[1]
    expected = demo.generate(PROMPT, stop_strings=word, **settings)
    assert expected != whole
    assert "".join(demo.generate_stream(PROMPT, stop_strings=word, max_tokens_per_yield=2, **settings)) == expected


def test_a_padded_row_streams_as_it_does_alone(demo):
    ids = demo.to_tokens(PROMPT)
    settings = {**GREEDY, "stop_at_eos": False}
    padded, mask = torch.cat([ids[:, :1], ids], 1), torch.ones(1, ids.shape[1] + 1, dtype=torch.long)
    mask[:, 0] = 0
    pieces = list(demo.generate_stream(padded, attention_mask=mask, **settings))
    assert torch.equal(torch.cat(pieces, 1)[:, 1:], demo.generate(ids, **settings))


def test_no_token_ends_a_row_that_may_not_end(demo):
    ids = demo.to_tokens(PROMPT)
    first = demo.hf_generate(ids, max_new_tokens=1, do_sample=False)[0, -1].item()
    own = demo.original_model.generation_config
    demo.original_model.generation_config = GenerationConfig(eos_token_id=first, pad_token_id=first)
    try:
        assert demo.hf_generate(ids, max_new_tokens=4, do_sample=False).shape[1] == ids.shape[1] + 1
        assert demo.hf_generate(ids, max_new_tokens=4, do_sample=False, stop_at_eos=False).shape[1] == ids.shape[1] + 4
        assert demo.original_model.generation_config.eos_token_id == first
    finally:
        demo.original_model.generation_config = own
    assert demo.hf_generate(ids, max_new_tokens=1, do_sample=False, return_type="str") == [
        demo.hf_generate(PROMPT, max_new_tokens=1, do_sample=False)
    ]


def test_a_first_token_is_for_decoders_of_encoders(demo):
    with pytest.raises(ValueError, match="forced_bos_token_id is for models with an encoder and a decoder"):
        demo.generate(PROMPT, forced_bos_token_id=3, **GREEDY)
