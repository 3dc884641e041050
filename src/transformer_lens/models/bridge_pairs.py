"""Two sentences at once, on a bridge over a model that compares them (BERT)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Int
from torch import Tensor

from transformer_lens.errors import MissingTokenizerError, TransformerLensError
from transformer_lens.models.next_sentence import ANSWERS
from transformer_lens.models.running import Running
from transformer_lens.text.pairs import encode_pair


class BridgePairs(Running):
    """`to_sentence_pair_tokens` and `predict_next_sentence`."""

    def to_sentence_pair_tokens(
        self, sentence_a: str, sentence_b: str, move_to_device: bool = True, truncate: bool = True
    ) -> dict[str, Int[Tensor, "1 pos"]]:
        """Two sentences in one row: "input_ids", "token_type_ids" (0 or 1: whose token it is) and "attention_mask".

        Args:
            sentence_a, sentence_b: the sentences.
            move_to_device: put them where the model is.
            truncate: cut the longer sentence until the row has n_ctx tokens.

        Raises:
            MissingTokenizerError: the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise MissingTokenizerError("Sentences need a tokenizer, and this bridge has none: boot it with one.")
        pair = encode_pair(self.tokenizer, sentence_a, sentence_b, self.cfg.n_ctx if truncate else None)
        named = dict(zip(("input_ids", "token_type_ids", "attention_mask"), pair, strict=True))
        return {name: x.to(self.input_device) for name, x in named.items()} if move_to_device else named

    def predict_next_sentence(
        self, sentence_a: str, sentence_b: str, return_type: str | None = "predictions", truncate: bool = True
    ) -> Any:
        """Whether the second sentence follows the first, as the model says.

        Args:
            sentence_a, sentence_b: the sentences.
            return_type: "predictions" (a sentence), or "logits" ([1, 2]: follows, does not).
            truncate: cut the longer sentence until the row has n_ctx tokens.

        Raises:
            TransformerLensError: the model has no head that says so: boot a BertForNextSentencePrediction.
        """
        if return_type not in ("predictions", "logits"):
            raise ValueError(f'return_type is "predictions" or "logits"; got {return_type!r}.')
        given = self.to_sentence_pair_tokens(sentence_a, sentence_b, truncate=truncate)
        logits = self(given.pop("input_ids"), **given)
        if logits.shape != (1, 2):
            raise TransformerLensError(
                f"This model says {list(logits.shape)} logits for a pair, not two: boot a model with a next-sentence "
                "head, BertForNextSentencePrediction."
            )
        return logits if return_type == "logits" else ANSWERS[int(logits[0].argmax())]
