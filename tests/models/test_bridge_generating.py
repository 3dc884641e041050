"""Generation on the wrapped host: transformers' own, with hooks active under its cache."""

import pytest
import torch
from families import hf_model, tokens

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
