"""Generation of text, on the native host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from transformer_lens import generation
from transformer_lens.text import USE_DEFAULT_VALUE, PaddingSide, TextCodec


class Generating:
    """`generate` and `generate_stream`. Needs `codec`, `embed` and `_tokens_of` of a HookedTransformer."""

    codec: TextCodec
    embed: Any
    _tokens_of: Any

    @torch.no_grad()
    def generate(
        self,
        input: str | list[str] | Tensor = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: int | list[int] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
        return_type: str | None = "input",
        verbose: bool = True,
        *,
        stop_strings: str | list[str] | None = None,
        output_logits: bool = False,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
        stopping_criteria: Any = None,
        model_inputs: dict[str, Any] | None = None,
        **generation_kwargs: Any,
    ) -> Any:
        """The input continued, by transformers' generate; hooks on the model run at every step.

        Args:
            input: a text, texts (padded on the left), token ids [batch, pos] or [pos], or embeddings.
            max_new_tokens: how many tokens at most.
            stop_at_eos: end a row at an end token; ended rows are filled with it.
            eos_token_id: the end token or tokens; None: the tokenizer's.
            do_sample: sample; False takes the likeliest token each time, as does temperature 0.
            top_k, top_p, temperature: shape the distribution that is sampled.
            freq_penalty: taken off a token's logit for each time it stands in the row already.
            use_past_kv_cache: keep keys and values of earlier tokens instead of running them again.
            prepend_bos, padding_side: as in `to_tokens`; batches of text are padded on the left.
            return_type: "input" (as the input came), "str", "tokens" or "embeds".
            verbose: show a progress bar.
            stop_strings: texts that end a row.
            output_logits: return transformers' output object (sequences, logits) instead.
            attention_mask: for ids or embeddings: 1 for tokens, 0 for padding (on the left), where ids do not show it.
            stopping_criteria: a transformers StoppingCriteria or several, each called after every token.
            model_inputs: further inputs of the model (`pixel_values`).
            generation_kwargs: any other setting of transformers' generate (repetition_penalty, num_beams, …).

        Returns:
            Text, a list of texts, ids [batch, pos + new], or embeddings [batch, pos + new, d_model].

        Raises:
            ValueError: no end token is known although stop_at_eos; more tokens than learned positions; padding on
                the right; a return type that is none of these.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> model = HookedTransformer.from_pretrained("demo")
            >>> model.generate("The Eiffel Tower is in", max_new_tokens=1, do_sample=False, verbose=False)
            'The Eiffel Tower is in Paris'
        """
        wanted = return_type_of(return_type, input)
        tokens, embeddings, mask = self._to_continue(input, prepend_bos, padding_side, attention_mask)
        options = generation.GenerationOptions(
            max_new_tokens=max_new_tokens,
            eos_token_ids=end_tokens(self.codec, stop_at_eos, eos_token_id),
            do_sample=do_sample,
            top_k=top_k,
            top_p=top_p,
            temperature=temperature,
            freq_penalty=freq_penalty,
            use_past_kv_cache=use_past_kv_cache,
            stop_strings=stop_strings,
            output_logits=output_logits,
            verbose=verbose,
            stopping_criteria=_criteria(stopping_criteria),
            inputs=model_inputs or {},
            further=generation_kwargs,
        )
        output = generation.generate(
            self, tokens, options, embeddings=embeddings, attention_mask=mask, tokenizer=self.codec.tokenizer
        )
        if output_logits:
            return output
        if wanted == "embeds":
            new = output if tokens is None else output[:, tokens.shape[1] :]
            start = self.embed(tokens) if embeddings is None else embeddings
            return torch.cat([start, self.embed(new)], 1)
        return as_text(self.codec, output, one=isinstance(input, str)) if wanted == "str" else output

    @torch.no_grad()
    def generate_stream(
        self,
        input: str | Tensor = "",
        max_new_tokens: int = 10,
        max_tokens_per_yield: int = 25,
        stop_at_eos: bool = True,
        eos_token_id: int | list[int] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
        return_type: str | None = "input",
        verbose: bool = True,
        *,
        stop_strings: str | list[str] | None = None,
        stopping_criteria: Any = None,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
        **generation_kwargs: Any,
    ) -> Iterator[Any]:
        """Pieces of what `generate` returns, as they come; put together they are the whole, the input first.

        Args:
            max_tokens_per_yield: how many tokens make a piece; the first counts the input's.

        The other arguments are those of `generate`; return_type is "input", "str" (one text) or "tokens", and
        stop_strings and stopping_criteria are for one row.
        """
        wanted = return_type_of(return_type, input)
        if wanted == "embeds" or (wanted == "str" and not isinstance(input, str) and len(input) > 1):
            raise ValueError(
                'generate_stream yields token ids or the pieces of one text: return_type="tokens" or "str".'
            )
        tokens, _, mask = self._to_continue(input, prepend_bos, padding_side, attention_mask)
        options = generation.GenerationOptions(
            max_new_tokens=max_new_tokens,
            eos_token_ids=end_tokens(self.codec, stop_at_eos, eos_token_id),
            do_sample=do_sample,
            top_k=top_k,
            top_p=top_p,
            temperature=temperature,
            freq_penalty=freq_penalty,
            use_past_kv_cache=use_past_kv_cache,
            stop_strings=stop_strings,
            verbose=verbose,
            stopping_criteria=_criteria(stopping_criteria),
            further=generation_kwargs,
        )
        pieces = generation.generate_stream(
            self,
            tokens,
            options,
            attention_mask=mask,
            max_tokens_per_yield=max_tokens_per_yield,
            tokenizer=self.codec.tokenizer,
        )
        return self._text_pieces(pieces) if wanted == "str" else pieces

    def _to_continue(
        self,
        input: str | list[str] | Tensor,
        prepend_bos: bool | None,
        padding_side: PaddingSide | None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if isinstance(input, list) and padding_side is None:
            padding_side = "left"
        tokens, embeddings, mask = self._tokens_of(input, prepend_bos, padding_side, attention_mask)
        if mask is not None and not bool(mask[:, -1].all()):
            raise ValueError('Text is continued at its end, so padding must be on the left: padding_side="left".')
        return tokens, embeddings, mask

    def _text_pieces(self, pieces: Iterator[Tensor]) -> Iterator[str]:
        seen, shown = None, ""
        for piece in pieces:
            seen = piece if seen is None else torch.cat([seen, piece], 1)
            text = str(as_text(self.codec, seen, one=True))
            if text.endswith("\N{REPLACEMENT CHARACTER}"):
                continue  # the bytes of a character are still to come
            yield text[len(shown) :]
            shown = text


def end_tokens(codec: TextCodec, stop_at_eos: bool, eos_token_id: int | list[int] | None) -> tuple[int, ...]:
    """The tokens that end a row: those given, or the tokenizer's; none with stop_at_eos=False.

    Raises:
        ValueError: none is known.
    """
    if not stop_at_eos:
        return ()
    if eos_token_id is None:
        eos_token_id = None if codec.tokenizer is None else codec.eos_id
    if eos_token_id is None:
        raise ValueError("stop_at_eos needs an end token: pass eos_token_id, or stop_at_eos=False.")
    return (eos_token_id,) if isinstance(eos_token_id, int) else tuple(eos_token_id)


def as_text(codec: TextCodec, tokens: Int[Tensor, "batch pos"], one: bool) -> str | list[str]:
    """The text of generated rows without special tokens: of the first, or of each."""
    tokenizer: Any = codec.tokenizer
    texts = [tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in tokens]
    return texts[0] if one else texts


def _criteria(given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def return_type_of(return_type: str | None, input: Any) -> str:
    """What to return ("str", "tokens" or "embeds"), from what a caller asks for and gives.

    Raises:
        ValueError: it is none of these.
    """
    if return_type == "input":
        if not isinstance(input, Tensor):
            return "str"
        return "embeds" if input.is_floating_point() else "tokens"
    if return_type not in ("str", "tokens", "embeds"):
        raise ValueError(f'return_type is "input", "str", "tokens" or "embeds"; got {return_type!r}.')
    return return_type
