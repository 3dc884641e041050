"""Whether one sentence follows another, as BERT learned to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.errors import MissingTokenizerError
from transformer_lens.models.hooked_encoder import HookedEncoder
from transformer_lens.text.pairs import encode_pair

Tokens = Int[Tensor, "batch pos"]
ARGUMENTS = ("input", "return_type", "token_type_ids", "one_zero_attention_mask")
ANSWERS = ("The sentences are sequential", "The sentences are NOT sequential")


class BertNextSentencePrediction:
    """A HookedEncoder asked whether the second of two sentences follows the first.

    Args:
        model: the encoder, whose weights and hooks are used; hooks on it act here.

    Example:
        >>> import torch
        >>> sizes = {"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20, "act_fn": "gelu"}
        >>> nsp = BertNextSentencePrediction(HookedEncoder({**sizes, "device": "cpu"}))
        >>> tokens, types = torch.tensor([[2, 5, 3, 6, 3]]), torch.tensor([[0, 0, 0, 1, 1]])
        >>> logits, cache = nsp.run_with_cache(tokens, token_type_ids=types)
        >>> logits.shape, cache["pooler.hook_pooler_out"].shape
        (torch.Size([1, 2]), torch.Size([1, 8]))
    """

    def __init__(self, model: HookedEncoder):
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `forward`."""
        return self.forward(*args, **kwargs)

    def to_tokens(
        self, input: Sequence[str], move_to_device: bool = True, truncate: bool = True
    ) -> tuple[Tokens, Tokens, Tokens]:
        """Token ids of two sentences in one row, which sentence each belongs to (0 or 1), and 1 for each token.

        Args:
            input: the two sentences.
            move_to_device: put them where the model is.
            truncate: cut the longer sentence until the row has n_ctx tokens.

        Raises:
            ValueError: not two sentences.
            MissingTokenizerError: the model has no tokenizer.
        """
        if isinstance(input, str) or len(input) != 2:
            raise ValueError(f"Give two sentences: [first, second]; got {input!r}.")
        if self.model.tokenizer is None:
            raise MissingTokenizerError(
                "Sentences need a tokenizer, and this model has none. Pass tokenizer=... when you build the model, or "
                "give token ids with token_type_ids."
            )
        pair = encode_pair(self.model.tokenizer, input[0], input[1], self.model.cfg.n_ctx if truncate else None)
        tokens, types, mask = (x.to(self.model.W_E.device) if move_to_device else x for x in pair)
        return tokens, types, mask

    def forward(
        self,
        input: Any,
        return_type: str | None = "logits",
        token_type_ids: Tokens | None = None,
        one_zero_attention_mask: Tokens | None = None,
    ) -> Any:
        """The logits of "follows" and "does not follow", [batch, 2]; the answer as text; or nothing.

        Args:
            input: two sentences, or token ids [batch, pos] of pairs.
            return_type: "logits", "predictions" (a sentence; a list for several rows), or None.
            token_type_ids: with ids: 0 for the first sentence, 1 for the second.
            one_zero_attention_mask: with ids: 1 for tokens, 0 for padding.

        Raises:
            ValueError: not two sentences, ids without their types, or an unknown return type.
        """
        asked = self._asked(input, return_type, token_type_ids, one_zero_attention_mask)
        return _answer(self.model(**asked), return_type)

    def run_with_cache(
        self, *model_args: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, **kwargs: Any
    ) -> tuple[Any, Any]:
        """What `forward` returns, and the activations. Further arguments as for `HookedEncoder.run_with_cache`."""
        given = dict(zip(ARGUMENTS, model_args, strict=False)) | {n: kwargs.pop(n) for n in ARGUMENTS if n in kwargs}
        kwargs |= {"return_cache_object": return_cache_object, "remove_batch_dim": remove_batch_dim}
        logits, cache = self.model.run_with_cache(**self._asked(**given), **kwargs)
        return _answer(logits, given.get("return_type", "logits")), cache

    def run_with_hooks(self, *model_args: Any, **kwargs: Any) -> Any:
        """What `forward` returns with hooks in place. Further arguments as for `HookedEncoder.run_with_hooks`."""
        given = dict(zip(ARGUMENTS, model_args, strict=False)) | {n: kwargs.pop(n) for n in ARGUMENTS if n in kwargs}
        logits = self.model.run_with_hooks(**self._asked(**given), **kwargs)
        return _answer(logits, given.get("return_type", "logits"))

    def _asked(
        self,
        input: Any,
        return_type: str | None = "logits",
        token_type_ids: Tokens | None = None,
        one_zero_attention_mask: Tokens | None = None,
    ) -> dict[str, Any]:
        if return_type not in ("logits", "predictions", None):
            raise ValueError(f'return_type is "logits", "predictions" or None; got {return_type!r}.')
        types, mask = token_type_ids, one_zero_attention_mask
        if not isinstance(input, Tensor):
            if types is not None or mask is not None:
                raise ValueError(
                    "token_type_ids and one_zero_attention_mask go with token ids; sentences bring theirs."
                )
            input, types, mask = self.to_tokens(input)
        elif types is None:
            raise ValueError(
                "Token ids of two sentences need token_type_ids (0 for the first, 1 for the second); without, the "
                "model reads them as one. Give the two sentences as text, or the types that to_tokens returns."
            )
        wanted = "logits" if return_type == "predictions" else return_type
        return {"input": input, "return_type": wanted, "token_type_ids": types, "one_zero_attention_mask": mask,
                "head": "nsp"}  # fmt: skip


def _answer(logits: Float[Tensor, "batch 2"] | None, return_type: str | None) -> Any:
    if logits is None or return_type != "predictions":
        return logits
    answers = [ANSWERS[int(row)] for row in logits.argmax(-1)]
    return answers[0] if len(answers) == 1 else answers
