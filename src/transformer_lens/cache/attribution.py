"""Reading a stack of stream parts: through a norm, and as contributions to logits."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.cache.errors import MissingWeightsError
from transformer_lens.cache.run import Run, as_slice, cached_scale, norm_at, stream_layer
from transformer_lens.hooks import Slice, SliceInput

TokenChoice = str | int | Int[Tensor, ""] | Int[Tensor, "batch_or_pos"] | Int[Tensor, "batch pos"]


def apply_ln_to_stack(
    run: Run,
    residual_stack: Float[Tensor, "component *batch_and_pos d_model"],
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    pos_slice: Slice | SliceInput = None,
    batch_slice: Slice | SliceInput = None,
    has_batch_dim: bool = True,
    recompute_ln: bool = False,
) -> Float[Tensor, "component *batch_and_pos_out d_model"]:
    """The stack, normalised as the input of a layer. See `ActivationCache.apply_ln_to_stack`."""
    last = stream_layer(run, layer, mlp_input)
    norm = norm_at(run, last, mlp_input)
    stack = _rows(run, residual_stack, batch_slice, has_batch_dim)
    if norm is None:
        return stack
    if recompute_ln:
        return norm.applied(stack)
    scale = _scale(run, last, mlp_input, pos_slice, batch_slice, has_batch_dim)
    return (norm.centred(stack) / scale.to(stack.device)).to(stack.dtype)


def _rows(run: Run, stack: Tensor, batch_slice: Slice | SliceInput, has_batch_dim: bool) -> Tensor:
    rows = as_slice(batch_slice)
    if rows.mode != "identity" and not run.has_batch_dim:
        raise ValueError("batch_slice has nothing to select from: the batch axis of this cache was removed.")
    return rows.apply(stack, dim=1) if has_batch_dim and run.has_batch_dim else stack


def _scale(
    run: Run,
    layer: int,
    mlp_input: bool,
    pos_slice: Slice | SliceInput,
    batch_slice: Slice | SliceInput,
    has_batch_dim: bool,
) -> Float[Tensor, "*batch_and_pos 1"]:
    norm = norm_at(run, layer, mlp_input)
    if norm is None:
        return torch.ones(1)
    scale = as_slice(pos_slice).apply(cached_scale(run, norm), dim=-2)
    if not run.has_batch_dim:
        return scale
    rows = as_slice(batch_slice)
    scale = rows.apply(scale, dim=0)
    if has_batch_dim or rows.mode == "int":
        return scale
    if scale.shape[0] != 1:
        raise ValueError(
            f"has_batch_dim=False: residual_stack is of one row, and the cache holds {scale.shape[0]}; say which with "
            "batch_slice=<int>."
        )
    return scale[0]


def logit_attrs(
    run: Run,
    residual_stack: Float[Tensor, "component *batch_and_pos d_model"],
    tokens: TokenChoice,
    incorrect_tokens: TokenChoice | None = None,
    *,
    pos_slice: Slice | SliceInput = None,
    batch_slice: Slice | SliceInput = None,
    has_batch_dim: bool = True,
) -> Float[Tensor, "component *batch_and_pos_out"]:
    """What each part adds to logits or their differences. See `ActivationCache.logit_attrs`."""
    stack = _rows(run, residual_stack, batch_slice, has_batch_dim)
    came_batched = has_batch_dim and run.has_batch_dim
    place = _Place(run, stack, came_batched, as_slice(pos_slice), as_slice(batch_slice))
    direction = place.directions(tokens)
    if incorrect_tokens is not None:
        direction = direction - place.directions(incorrect_tokens)
    norm = norm_at(run, run.n_layers)
    if norm is not None:
        # NOTE: w belongs to the norm that is not folded; without it these would not be logits.
        direction = norm.centred(norm.weighted(direction))
    direction = direction.to(stack)
    # [*batch_and_pos, d_model] each, where the directions have these axes at all
    logits = stack @ direction if direction.ndim == 1 else torch.einsum("n...d,...d->n...", stack, direction)
    scale = _scale(run, run.n_layers, False, pos_slice, batch_slice, has_batch_dim)[..., 0]
    return (logits / scale.to(logits.device)).to(stack.dtype)


class _Place:
    """Where the rows of a stack stand, for tokens to be laid beside them."""

    def __init__(self, run: Run, stack: Tensor, came_batched: bool, positions: Slice, rows: Slice):
        batched = came_batched and rows.mode != "int"
        self.run = run
        self.came_batched = came_batched
        self.axes = stack.shape[1:-1]
        self.batch = self.axes[0] if batched else None
        self.rows = rows
        self.positions = positions
        if not len(self.axes) - batched <= 1:
            raise ValueError(
                f"residual_stack has shape [component, {'batch, ' if batched else ''}(pos,) d_model]; got "
                f"{tuple(stack.shape)}."
            )
        self.has_pos = len(self.axes) > batched
        self.length = self.axes[-1] if self.has_pos else None

    def directions(self, tokens: TokenChoice) -> Float[Tensor, "*batch_and_pos d_model"]:
        """The columns of W_U of these tokens, with the axes of the stack (1 where they are the same along one)."""
        columns = self.run.readout.unembedding().T
        return columns[self.aligned(token_ids(self.run, tokens).to(columns.device))]

    def aligned(self, ids: Tensor) -> Tensor:
        """The ids with the axes of the stack; of whole batches and rows of tokens, those that the slices pick."""
        given = tuple(ids.shape)
        if ids.numel() == 1:
            return ids.reshape(())
        if ids.ndim == 1 and not self.came_batched:
            picked = self._picked(ids, 0, self.length, self.positions)
        elif ids.ndim == 1:
            picked = self._picked(ids, 0, self.batch, self.rows)
            picked = picked[:, None] if self.has_pos and picked.ndim else picked
        elif ids.ndim == 2:
            picked = self._picked(self._picked(ids, 0, self.batch, self.rows), -1, self.length, self.positions)
        else:
            raise ValueError(f"tokens are one id, [batch] or [batch, pos]; got {given}.")
        try:
            torch.broadcast_shapes(picked.shape, self.axes)
        except RuntimeError:
            raise ValueError(
                f"tokens of shape {given} do not fit a residual_stack with axes {tuple(self.axes)} between component "
                "and d_model: give one id, one for each row [batch], or one for each position [batch, pos]."
            ) from None
        return picked

    def _picked(self, ids: Tensor, axis: int, length: int | None, selection: Slice) -> Tensor:
        # NOTE: a stack comes with its positions picked already; tokens may be picked or of the whole run.
        if selection.mode == "identity" or ids.shape[axis] == length:
            return ids
        return selection.apply(ids, dim=axis)


def token_ids(run: Run, tokens: object) -> Int[Tensor, "*token"]:
    """The ids that a choice of tokens means: one string that is one token, ids, or strings in a list.

    Raises:
        MissingWeightsError: strings, and there is no model to read them.
    """
    if isinstance(tokens, str):
        if run.model is None:
            raise MissingWeightsError(
                f"The token {tokens!r} cannot be looked up: this cache has no model and so no tokenizer. Give its id, "
                "or load the cache with its model: ActivationCache.load(path, model=model)."
            )
        return torch.tensor(run.model.to_single_token(tokens))
    if isinstance(tokens, list | tuple):
        return torch.stack([token_ids(run, token) for token in tokens])
    return torch.as_tensor(tokens)
