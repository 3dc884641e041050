"""What a Jacobian lens reads in a prompt, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.lenses.jacobian.fit import refuse_training
from transformer_lens.lenses.readout import logit_readout
from transformer_lens.lenses.runs import token_rows

TOP_K = 10
Transport = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, eq=False)
class JacobianLensReadout:
    """The likeliest tokens of a prompt's positions at some layers, and the model's own. Tensors are on CPU.

    Attributes:
        lens_topk_values: by layer, the greatest logits read from the block's output.
        lens_topk_indices: their tokens, best first.
        model_topk_values: the greatest of the model's own logits.
        model_topk_indices: their tokens.
        tokens: the prompt's.
        positions: which positions were read, as the pos axis has them.
        use_jacobian: the lens was applied; else the logit lens.
        lens_logits: all logits by layer, where they were asked for.
        model_logits: all of the model's own.
    """

    lens_topk_values: dict[int, Float[Tensor, "pos k"]]
    lens_topk_indices: dict[int, Int[Tensor, "pos k"]]
    model_topk_values: Float[Tensor, "pos k"]
    model_topk_indices: Int[Tensor, "pos k"]
    tokens: Int[Tensor, "seq"]
    positions: list[int]
    use_jacobian: bool = True
    lens_logits: dict[int, Float[Tensor, "pos d_vocab"]] | None = None
    model_logits: Float[Tensor, "pos d_vocab"] | None = None

    def top_tokens(self, tokenizer: Any, k: int = 5) -> dict[int, list[list[str]]]:
        """By layer and position, the likeliest tokens as text, best first.

        Raises:
            ValueError: more than were kept are asked for, or there is no tokenizer.
        """
        kept = self.model_topk_indices.shape[-1]
        if not 1 <= k <= kept:
            raise ValueError(f"k is from 1 to the top_k that was read, {kept}; got {k}.")
        if tokenizer is None:
            raise ValueError("Without a tokenizer tokens have no text: give one, or see lens_topk_indices.")
        return {
            layer: [[tokenizer.decode([token]) for token in row[:k]] for row in ids.tolist()]
            for layer, ids in self.lens_topk_indices.items()
        }


@dataclass(frozen=True)
class Question:
    """What to read of a prompt.

    Attributes:
        layers: blocks whose outputs are read; the last one's as it is.
        positions: None: all.
        top_k: how many tokens to keep.
        full_logits: keep all logits, too.
        transport: what is done to the other blocks' outputs first, given with the layer; None: nothing.
    """

    layers: list[int]
    positions: Sequence[int] | None
    top_k: int
    full_logits: bool
    transport: Transport | None


def read_prompt(model: Any, input: str | Int[Tensor, "batch seq"], question: Question) -> JacobianLensReadout:
    """What the outputs of some blocks say in the vocabulary.

    Raises:
        ValueError: more than one prompt, a position that it has not, or more tokens than there are.
    """
    tokens = one_prompt(model, input)
    if not 1 <= question.top_k <= model.cfg.d_vocab:
        raise ValueError(f"top_k is from 1 to the size of the vocabulary, {model.cfg.d_vocab}; got {question.top_k}.")
    positions = places(question.positions, tokens.shape[1])
    logits, streams = block_outputs(model, tokens, question.layers)
    logits = logits[0, positions].float()
    best = logits.topk(question.top_k)
    values, ids, full = {}, {}, {}
    for layer in question.layers:
        stream = streams[layer][0, positions]
        if question.transport is not None and layer != model.cfg.n_layers - 1:
            stream = question.transport(stream, layer).to(stream)
        found = logit_readout(model, stream, top_k=question.top_k)
        assert found.top_ids is not None
        values[layer], ids[layer] = found.values.float().cpu(), found.top_ids.cpu()
        if question.full_logits:
            full[layer] = logit_readout(model, stream).values.float().cpu()
    return JacobianLensReadout(
        values, ids, best.values.cpu(), best.indices.cpu(), tokens[0].cpu(), positions,
        use_jacobian=question.transport is not None,
        lens_logits=full if question.full_logits else None,
        model_logits=logits.cpu() if question.full_logits else None,
    )  # fmt: skip


def block_outputs(
    model: Any, tokens: Int[Tensor, "batch pos"], layers: Sequence[int]
) -> tuple[Tensor, dict[int, Tensor]]:
    """The logits, and the output of some blocks.

    Raises:
        ValueError: a bridge is in training mode.
    """
    refuse_training(model)
    names = {layer: output_name(layer) for layer in layers}
    logits, cache = model.run_with_cache(tokens, names_filter=list(names.values()))
    return logits, {layer: cache[name] for layer, name in names.items()}


def output_name(layer: int) -> str:
    """The hook point of a block's output, as a bridge calls it; HookedTransformer knows it, too."""
    return f"blocks.{layer}.hook_out"


def one_prompt(model: Any, input: str | Int[Tensor, "batch seq"]) -> Int[Tensor, "1 seq"]:
    """The tokens of one prompt.

    Raises:
        ValueError: there are more, or it is no prompt.
    """
    if not isinstance(input, str | Tensor) or (isinstance(input, Tensor) and (input.ndim != 2 or len(input) != 1)):
        came = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
        raise ValueError(f"One prompt at a time: a text, or token ids [1, seq]; got {came}.")
    return token_rows(model, input)


def places(positions: Sequence[int] | None, length: int) -> list[int]:
    """Positions counted from the start; None: all.

    Raises:
        ValueError: there is none, or one is not there.
    """
    if positions is None:
        return list(range(length))
    if not positions or not all(-length <= position < length for position in positions):
        raise ValueError(f"positions are one or more from {-length} to {length - 1}; got {list(positions)}.")
    return [position % length for position in positions]
