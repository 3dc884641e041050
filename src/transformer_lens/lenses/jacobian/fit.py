"""Mean Jacobians of the final stream by the streams before it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transformer_lens.lenses.runs import stream_names, token_rows
from transformer_lens.native.transformer import NativeTransformer

Batch = tuple[Tensor, Tensor]
"""Rows of tokens of one length, and which of their positions count: each [row, pos]."""


def mean_jacobians(
    model: Any,
    batches: Sequence[Batch],
    entering: Sequence[int],
    *,
    outputs: int = 1,
    step: Callable[[], object] = lambda: None,
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """By layer, the Jacobian [out, in] of the final stream by the stream that enters it, averaged over rows; on CPU.

    In each row some positions count. What is averaged is the derivative of the final streams there, summed, by the
    stream at each of them, averaged over them: with one position its derivative by itself; with several that of
    those that follow, too, since attention looks back.

    Args:
        model: the model, on either host.
        batches: rows of one length, and which positions count in each.
        entering: the layers whose entering streams count.
        outputs: how many dimensions of the final stream go backward at a time; the batch runs as many times over.
        step: called after each backward pass.

    Raises:
        ValueError: a bridge is in training mode.
    """
    refuse_training(model)
    d_model = model.cfg.d_model
    total = {layer: torch.zeros(d_model, d_model) for layer in entering}
    for tokens, counted in batches:
        _add(model, tokens, counted, total=total, outputs=outputs, step=step)
    rows = sum(len(tokens) for tokens, _ in batches)
    return {layer: matrix / rows for layer, matrix in total.items()}


def _add(
    model: Any,
    tokens: Int[Tensor, "row pos"],
    counted: Bool[Tensor, "row pos"],
    *,
    total: dict[int, Tensor],
    outputs: int,
    step: Callable[[], object],
) -> None:
    n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
    streams: list[Tensor] = []

    def keep(stream: Float[Tensor, "batch pos d_model"], hook: Any) -> Tensor:
        # The first is a leaf, so that nothing is needed of what comes before, parameters included.
        kept = stream if streams else stream.detach().clone().requires_grad_()
        streams.append(kept)
        return kept

    layers = sorted(total)
    names = stream_names(n_layers)
    with torch.enable_grad(), model.hooks(fwd_hooks=[(names[layer], keep) for layer in layers]):
        final: Tensor = model(tokens.repeat(outputs, 1), stop_at_layer=n_layers)
    counted = counted.to(final.device)
    weight = (counted / counted.sum(-1, keepdim=True)).float()
    shape = (outputs, *tokens.shape, d_model)
    for start in range(0, d_model, outputs):
        rows = range(start, min(start + outputs, d_model))
        seed = final.new_zeros(shape)
        for copy, out in enumerate(rows):
            seed[copy, ..., out] = counted.to(seed)
        gradients = torch.autograd.grad(final, streams, seed.reshape(final.shape), retain_graph=True)
        for layer, gradient in zip(layers, gradients, strict=True):
            mean = torch.einsum("crpd,rp->cd", gradient.reshape(shape).float(), weight.to(gradient.device))
            total[layer][rows.start : rows.stop] += mean[: len(rows)].cpu()
        step()


def prompts_for_fit(model: Any, prompts: Sequence[Any], *, max_seq_len: int, skip_first: int) -> list[Batch]:
    """Each prompt's tokens, cut to a length, and which positions count: all but the first few and the last.

    Raises:
        ValueError: one text in place of a sequence, a negative number, or no prompt has a position that counts.
    """
    if isinstance(prompts, str):
        raise ValueError("prompts is a sequence of texts; got one text. Put it in a list: [prompt].")
    if skip_first < 0 or max_seq_len < 1:
        raise ValueError(
            f"skip_first_positions is at least 0 and max_seq_len at least 1; got {skip_first} and {max_seq_len}."
        )
    rows = [token_rows(model, prompt)[:, :max_seq_len] for prompt in prompts]
    long = [tokens for tokens in rows if tokens.shape[1] > skip_first + 1]
    if not long:
        raise ValueError(
            f"No prompt has a position that counts: of {len(rows)}, none is longer than skip_first_positions + 1 = "
            f"{skip_first + 1} tokens. Give longer prompts, or a smaller skip_first_positions."
        )
    if len(long) < len(rows):
        warnings.warn(
            f"{len(rows) - len(long)} of {len(rows)} prompts are left out: they have no more than "
            f"{skip_first + 1} tokens (skip_first_positions + 1).",
            stacklevel=3,
        )
    return [(tokens, _between(tokens, skip_first)) for tokens in long]


def _between(tokens: Int[Tensor, "row pos"], skip_first: int) -> Bool[Tensor, "row pos"]:
    counted = torch.zeros_like(tokens, dtype=torch.bool)
    counted[:, skip_first:-1] = True
    return counted


def layers_to_fit(n_layers: int, layers: Sequence[int] | None) -> list[int]:
    """Block numbers in order, each once; None: all but the last, whose output is the final stream.

    Raises:
        ValueError: there is none, or one is not below the last.
    """
    found = range(n_layers - 1) if layers is None else [layer + n_layers if layer < 0 else layer for layer in layers]
    wrong = [layer for layer in found if not 0 <= layer < n_layers - 1]
    if wrong or not found:
        raise ValueError(
            f"A lens is fitted to the outputs of blocks before the last: 0 to {n_layers - 2} of {n_layers} layers; got "
            f"{list(found) if layers is None else list(layers)}."
        )
    return sorted(set(found))


def refuse_training(model: Any) -> None:
    """Raises a ValueError if the model is a bridge in training mode: its dropout would change what is read."""
    if model.training and not isinstance(model, NativeTransformer):  # which has no dropout
        raise ValueError("The model is in training mode, so dropout changes its streams. Call model.eval() first.")
