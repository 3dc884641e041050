"""Small tokenizers built in memory, one for each way in which special tokens are handled."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from transformer_lens.text import TextCodec

_MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "r l", "Ġwo rl", "Ġworl d", "Ġ a", "Ġ b"]
WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog"]


def _byte_level(special: list[str]) -> Tokenizer:
    pairs = [tuple(merge.split(" ")) for merge in _MERGES]
    entries = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in pairs)]
    tokenizer = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _word_level(special: list[str], unknown: str) -> Tokenizer:
    vocab = {entry: i for i, entry in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def gpt2_like() -> PreTrainedTokenizerFast:
    """Byte-level; BOS is EOS (id 0), no padding token; adds nothing by itself. "hello" is 260, " world" 265."""
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=_byte_level([end]), bos_token=end, eos_token=end, unk_token=end)


def llama_like() -> PreTrainedTokenizerFast:
    """Byte-level; adds BOS (1) by itself; EOS is 2; no padding token. "hello" is 262, " world" 267."""
    tokenizer = _byte_level(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )


def sentencepiece_like() -> LlamaTokenizer:
    """Spaces are the mark U+2581, one is put before a text; BOS (1) is declared, not added. "hi" is 6."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "\u2581": 3, "h": 4, "i": 5, "\u2581hi": 6, "\u2581h": 7}
    return LlamaTokenizer(vocab=vocab, merges=[("\u2581", "h"), ("\u2581h", "i")])


def bert_like() -> PreTrainedTokenizerFast:
    """Words from id 4; puts CLS (2) and SEP (3) around a text; padding is 0; neither BOS nor EOS is declared."""
    tokenizer = _word_level(["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[UNK]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def t5_like() -> PreTrainedTokenizerFast:
    """Words from id 3; appends EOS (1) by itself; padding is 0; no BOS."""
    tokenizer = _word_level(["<pad>", "</s>", "<unk>"], "<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


def word_level(**special: str) -> PreTrainedTokenizerFast:
    """Words from id 3 after <unk>, <eos> and <pad>; declares only the special tokens asked for."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_word_level(["<unk>", "<eos>", "<pad>"], "<unk>"), unk_token="<unk>", **special
    )


ALL = {
    "gpt2": gpt2_like,
    "llama": llama_like,
    "bert": bert_like,
    "t5": t5_like,
    "word": lambda: word_level(eos_token="<eos>"),
}


def codec(name: str, **settings: object) -> TextCodec:
    """A codec over one of these tokenizers."""
    return TextCodec(ALL[name](), **settings)
