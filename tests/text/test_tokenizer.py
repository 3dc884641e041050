import pytest
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import models, processors
from transformers import PreTrainedTokenizerFast

from transformer_lens.text import SpecialTokenError, Tokenizer
from transformer_lens.text.tokenizer import Frame, probe_frame, special_id

from . import offline_tokenizers as offline

FRAMES = {
    "gpt2": Frame((), ()),
    "llama": Frame((1,), ()),
    "bert": Frame((2,), (3,)),
    "t5": Frame((), (1,)),
    "word": Frame((), ()),
}


@pytest.mark.parametrize("name", offline.ALL)
def test_frame_is_what_the_tokenizer_adds(name):
    assert probe_frame(offline.ALL[name]()) == FRAMES[name]


def test_frame_of_several_tokens_and_of_one_id_on_both_sides():
    tokenizer = offline.llama_like()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<unk> <s> $A <s>", special_tokens=[("<unk>", 0), ("<s>", 1)]
    )
    assert probe_frame(tokenizer) == Frame((0, 1), (1,))


def test_one_special_token_with_bos_equal_to_eos_is_found_on_its_true_side():
    tokenizer = offline.gpt2_like()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    assert probe_frame(tokenizer) == Frame((), (0,))


def test_frame_that_cannot_be_found_is_an_error():
    raw = RawTokenizer(models.WordLevel({"<s>": 0}))
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    with pytest.raises(SpecialTokenError, match="no ordinary token was found"):
        probe_frame(PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>"))


def test_vocabulary_of_special_tokens_alone_is_no_error_where_none_is_added():
    raw = RawTokenizer(models.WordLevel({"<s>": 0}))
    assert probe_frame(PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>")) == Frame((), ())


def test_special_ids_are_those_declared():
    llama = offline.llama_like()
    assert (special_id(llama, "bos_token"), special_id(llama, "eos_token"), special_id(llama, "pad_token")) == (
        1,
        2,
        None,
    )


@pytest.mark.parametrize("name", offline.ALL)
def test_transformers_tokenizers_are_tokenizers(name):
    assert isinstance(offline.ALL[name](), Tokenizer)
    assert not isinstance("text", Tokenizer)
