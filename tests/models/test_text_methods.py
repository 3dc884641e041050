"""Text in and out of a model, by its configuration."""

import pytest
import torch

from text import offline_tokenizers as offline
from toys import BASE, KINDS
from transformer_lens import HookedTransformer
from transformer_lens.errors import MissingTokenizerError


def model_with(name, **fields):
    given = {**BASE, **KINDS["plain"], "d_vocab": -1, **fields}
    return HookedTransformer(given, tokenizer=offline.ALL[name]())


@pytest.fixture(scope="module")
def model():
    return model_with("gpt2")


def test_the_vocabulary_is_the_tokenizers(model):
    assert model.cfg.d_vocab == model.cfg.d_vocab_out == len(model.tokenizer.get_vocab())
    assert model.W_E.shape[0] == model.W_U.shape[1] == model.cfg.d_vocab
    assert model_with("gpt2", d_vocab_out=7)("hello").shape == (1, 2, 7)


def test_text_is_run_as_its_tokens(model):
    tokens = model.to_tokens("hello world")
    assert tokens.tolist() == [[0, 260, 265]]
    assert torch.equal(model("hello world"), model(tokens))
    assert torch.equal(model("hello world", prepend_bos=False), model(tokens[:, 1:]))
    assert torch.equal(model(["hello world"]), model(tokens))
    assert model("hello world", return_type="loss").isfinite()


def test_the_configuration_decides_about_bos():
    model = model_with("gpt2", default_prepend_bos=False)
    assert model.to_tokens("hello").tolist() == [[260]]
    assert model.to_tokens("hello", prepend_bos=True).tolist() == [[0, 260]]
    model.cfg.default_prepend_bos = True
    assert model.to_tokens("hello").tolist() == [[0, 260]]


def test_bos_is_never_doubled():
    model = model_with("llama")
    assert model.cfg.tokenizer_prepends_bos
    assert model.to_tokens("hello").tolist() == [[1, 262]]
    assert model.to_tokens("hello", prepend_bos=False).tolist() == [[262]]
    assert not model_with("gpt2").cfg.tokenizer_prepends_bos


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("prepend_bos", [True, False])
def test_a_left_padded_batch_equals_its_rows(name, prepend_bos):
    model = model_with(name)
    texts = ["hello", "hello world a b", "a b"]
    both = model(texts, padding_side="left", prepend_bos=prepend_bos)
    losses = model(texts, padding_side="left", prepend_bos=prepend_bos, return_type="loss", loss_per_token=True)
    for row, (text, loss) in enumerate(zip(texts, losses, strict=True)):
        alone = model(text, prepend_bos=prepend_bos)[0]
        torch.testing.assert_close(both[row, -len(alone) :], alone, atol=2e-5, rtol=2e-5)
        each = model(text, prepend_bos=prepend_bos, return_type="loss", loss_per_token=True)[0]
        torch.testing.assert_close(loss[len(loss) - len(each) :], each, atol=2e-5, rtol=2e-5)
        assert (loss[: len(loss) - len(each)] == 0).all()
    ids = model.to_tokens(texts, padding_side="left", prepend_bos=prepend_bos)
    from_ids = model(ids, padding_side="left", prepend_bos=prepend_bos)
    for row, text in enumerate(texts):
        length = model.to_tokens(text, prepend_bos=prepend_bos).shape[1]
        torch.testing.assert_close(from_ids[row, -length:], both[row, -length:], atol=2e-5, rtol=2e-5)


def test_a_right_padded_batch_equals_its_rows(model):
    texts = ["hello", "hello world a b"]
    both = model(texts, padding_side="right")
    torch.testing.assert_close(both[0, :2], model("hello")[0], atol=2e-5, rtol=2e-5)
    mean = model(texts, padding_side="right", return_type="loss")
    each = [model(text, return_type="loss", loss_per_token=True) for text in texts]
    torch.testing.assert_close(mean, torch.cat([e[0] for e in each]).mean(), atol=2e-5, rtol=2e-5)


def test_ids_that_begin_with_padding_in_some_rows_are_a_left_padded_batch(model):
    ids = model.to_tokens(["hello", "hello world a b"], padding_side="left")
    assert model.codec.padding_side == "right"
    torch.testing.assert_close(model(ids)[0, -2:], model("hello")[0], atol=2e-5, rtol=2e-5)


def test_tokens_and_strings(model):
    assert model.to_str_tokens("hello world") == ["<|endoftext|>", "hello", " world"]
    assert model.to_str_tokens(["hello", " world"], prepend_bos=False) == [["hello"], [" world"]]
    assert model.to_str_tokens(torch.tensor([260, 265])) == ["hello", " world"]
    assert model.to_string(torch.tensor([[260, 265]])) == ["hello world"]
    assert model.to_string([260, 265]) == "hello world"
    assert model.to_single_token(" world") == 265
    assert model.to_single_str_token(265) == " world"
    with pytest.raises(ValueError, match="hello world"):
        model.to_single_token("hello world")
    assert model.get_token_position(" world", "hello world world") == 2
    assert model.get_token_position(" world", "hello world world", mode="last") == 3
    assert model.get_token_position(" world", "hello world", prepend_bos=False) == 1


def test_residual_directions(model):
    world = model.W_U[:, 265]
    for token in (" world", 265, torch.tensor(265), torch.tensor([265]), torch.tensor([[265]])):
        assert torch.equal(model.tokens_to_residual_directions(token), world)
    several = model.tokens_to_residual_directions(torch.tensor([[265, 260], [1, 2]]))
    assert several.shape == (2, 2, 16)
    assert torch.equal(several[0, 0], world)


def test_text_is_cut_to_the_context_unless_told_otherwise(model):
    long = "hello" * 40
    assert model.to_tokens(long).shape == (1, 24)
    assert model.to_tokens(long, truncate=False).shape == (1, 41)
    assert model(long).shape[1] == 24
    with pytest.raises(ValueError, match="n_ctx=24"):
        model(model.to_tokens(long, truncate=False))


def test_another_tokenizer():
    model = model_with("gpt2")
    own = model.tokenizer
    model.set_tokenizer(offline.ALL["llama"]())
    assert model.to_tokens("hello").tolist() == [[1, 262]]
    assert model.cfg.tokenizer_prepends_bos
    model.tokenizer = own
    assert model.to_tokens("hello").tolist() == [[0, 260]]
    model.set_tokenizer(own, default_padding_side="left")
    assert model.to_tokens(["hello", "hello world"])[0, 0] == 0
    model.tokenizer = None
    with pytest.raises(MissingTokenizerError):
        model.to_tokens("hello")


def test_the_padding_side_of_the_model():
    given = {**BASE, "d_vocab": -1}
    model = HookedTransformer(given, tokenizer=offline.gpt2_like(), default_padding_side="left")
    assert model.to_tokens(["hello", "hello world"]).tolist() == [[0, 0, 260], [0, 260, 265]]
    assert model.tokenizer.padding_side == "right"


def test_the_tokenizer_of_the_configuration_is_loaded(tmp_path):
    offline.gpt2_like().save_pretrained(tmp_path)
    model = HookedTransformer({**BASE, "d_vocab": -1, "tokenizer_name": str(tmp_path)})
    assert model.to_tokens("hello world").tolist() == [[0, 260, 265]]
    assert model.cfg.d_vocab == len(model.tokenizer.get_vocab())


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m("text"),
        lambda m: m.to_tokens("text"),
        lambda m: m.to_string([1, 2]),
        lambda m: m.to_single_token("text"),
        lambda m: m.generate("text", verbose=False),
        lambda m: m.run_with_cache(["text", "more"]),
    ],
)
def test_text_without_a_tokenizer(ask):
    with pytest.raises(MissingTokenizerError, match="tokenizer"):
        ask(HookedTransformer(BASE))
