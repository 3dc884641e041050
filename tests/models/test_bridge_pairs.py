"""Two sentences on a bridge over BERT's next-sentence model."""

import pytest
import torch
import transformers
from transformers import BertConfig, BertForNextSentencePrediction

from transformer_lens import TransformerBridge
from transformer_lens.errors import MissingTokenizerError, TransformerLensError

WORDS = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"), *(f"word{n}" for n in range(12))]


def bert(tokenizer=True):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8,
    )  # fmt: skip
    words = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    model = BertForNextSentencePrediction(config).eval()
    return TransformerBridge.boot_transformers(hf_model=model, tokenizer=words if tokenizer else None)


def test_pairs_of_sentences_are_one_row():
    given = bert().to_sentence_pair_tokens("the cat", "sat")
    assert given["input_ids"].tolist() == [[2, 5, 6, 3, 7, 3]]
    assert given["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    assert given["attention_mask"].tolist() == [[1] * 6]
    assert bert().to_sentence_pair_tokens("the cat " * 3, "sat " * 3)["input_ids"].shape == (1, 8)
    long = bert().to_sentence_pair_tokens("the cat " * 3, "sat " * 3, truncate=False)
    assert long["input_ids"].shape == (1, 12)
    with pytest.raises(MissingTokenizerError, match="this bridge has none"):
        bert(tokenizer=False).to_sentence_pair_tokens("the cat", "sat")


@torch.no_grad()
def test_whether_one_follows_the_other():
    bridge = bert()
    logits = bridge.predict_next_sentence("the cat", "sat", return_type="logits")
    given = bridge.to_sentence_pair_tokens("the cat", "sat")
    assert torch.equal(logits, bridge.original_model(**given).logits)
    answers = ("The sentences are sequential", "The sentences are NOT sequential")
    assert bridge.predict_next_sentence("the cat", "sat") == answers[int(logits.argmax())]
    with pytest.raises(ValueError, match='"predictions" or "logits"; got None'):
        bridge.predict_next_sentence("the cat", "sat", return_type=None)


def test_another_model_cannot_say():
    words = bert().tokenizer
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.BertForMaskedLM(config).eval()
    bridge = TransformerBridge.boot_transformers(hf_model=model, tokenizer=words)
    with pytest.raises(TransformerLensError, match=r"\[1, 6, 20\] logits for a pair, not two"):
        bridge.predict_next_sentence("the cat", "sat")
