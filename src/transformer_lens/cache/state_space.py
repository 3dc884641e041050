"""State space layers (Mamba) of a run: their states, and what each position takes from each earlier one.

Both generations of Mamba are one recurrence, given what a position writes, keeps and reads: S_t = decay_t * S_(t-1) +
dt_t B_t x_t, y_t = C_t S_t + D x_t. Sources: Gu and Dao 2023, arXiv 2312.00752; Dao and Gu 2024, arXiv 2405.21060.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.cache.errors import UndefinedDecompositionError
from transformer_lens.cache.run import Run


@dataclass(frozen=True, eq=False)
class Recurrence:
    """What one layer's recurrence ran over. In Mamba-1 each channel is a head of width 1.

    Attributes:
        x: what positions write.
        dt: step sizes, positive.
        A: the rate of decay, negative: of each head and state coordinate, or one for all of a head's.
        B: where in the state a position writes.
        C: where it reads.
        D: what passes by the state.
        heads: whether the model speaks of heads (Mamba-2); otherwise of channels.
    """

    x: Float[Tensor, "batch pos head d_head"]
    dt: Float[Tensor, "batch pos head"]
    A: Float[Tensor, "head state_or_one"]
    B: Float[Tensor, "batch pos head_or_one state"]
    C: Float[Tensor, "batch pos head_or_one state"]
    D: Float[Tensor, "head"]
    heads: bool

    def attention(self, *, dt_scaling: bool, per_state_coord: bool) -> Float[Tensor, "batch head *state query key"]:
        """What a query reads of what a key wrote: C_q exp(A (dt_(k+1) + … + dt_q)) B_k, zero for later keys."""
        n_state, columns = self.B.shape[-1], self.A.shape[-1]
        sums = self.dt.cumsum(1).transpose(1, 2)  # [batch, head, pos]
        spans = sums[..., :, None] - sums[..., None, :]  # [batch, head, query, key]
        future = torch.ones_like(spans, dtype=torch.bool).triu(1)
        spans = spans.masked_fill(future, torch.inf)  # exp(A inf) = 0, as A is negative
        reads, writes = self.C.transpose(1, 2), self.B.transpose(1, 2)  # [batch, head, pos, state]
        found: list[Tensor] = []
        # NOTE: one coordinate at a time, as all of them are n_state times as much memory.
        for n in range(n_state):
            decay = (self.A[:, n if columns > 1 else 0, None, None] * spans).exp()
            part = reads[..., :, None, n] * decay * writes[..., None, :, n]
            if found and not per_state_coord:
                found[0] += part
            else:
                found.append(part)
        whole = torch.stack(found, 2) if per_state_coord else found[0]
        if dt_scaling:
            steps = self.dt.transpose(1, 2)[..., None, :]
            whole = whole * (steps[:, :, None] if per_state_coord else steps)
        return whole

    def states(self) -> Float[Tensor, "batch pos head *d_head state"]:
        """The state after each position."""
        batch, length, n_heads, width = self.x.shape
        state = self.x.new_zeros(batch, n_heads, width, self.B.shape[-1])
        found = []
        for pos in range(length):
            dt = self.dt[:, pos, :, None]
            written = (dt * self.x[:, pos])[..., None] * self.B[:, pos, :, None]
            state = (self.A * dt).exp()[:, :, None] * state + written
            found.append(state)
        every = torch.stack(found, 1)
        return every if self.heads else every[:, :, :, 0]

    def output(self) -> Float[Tensor, "batch pos head d_head"]:
        """What the recurrence gives, before the gate.

        Example:
            >>> ones = torch.ones(1, 3, 1, 1)
            >>> held = Recurrence(ones, ones[..., 0], -torch.full((1, 1), 1e-9), ones, ones, torch.zeros(1), True)
            >>> held.output().flatten()
            tensor([1., 2., 3.])
        """
        attention = self.attention(dt_scaling=True, per_state_coord=False)
        return torch.einsum("bhqk,bkhd->bqhd", attention, self.x) + self.D[:, None] * self.x


@singledispatch
def state_space_mixers(model: object) -> Mapping[int, nn.Module]:
    """The layers of a model that are state spaces with a known recurrence, and the module that each is.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer({"n_layers": 2, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20})
        >>> state_space_mixers(model)
        {}
    """
    return {}


def recurrence(run: Run, layer: int, mixer: nn.Module) -> Recurrence:
    """What the recurrence of a layer ran over, from what was cached of it.

    Raises:
        UnknownNameError: what it needs was not cached.
    """
    return _MIXERS[type(mixer).__name__](run, layer, mixer)


def _first(run: Run, layer: int, mixer: nn.Module) -> Recurrence:
    name, weights = f"blocks.{layer}.mixer", dict(mixer.named_parameters())
    read = _batched(run, run.needed(f"{name}.x_proj.hook_out"))
    n_state, rank = weights["A_log"].shape[1], weights["dt_proj.weight"].shape[1]
    low_rank, B, C = read.split([rank, n_state, n_state], -1)
    dt = nn.functional.linear(low_rank, weights["dt_proj.weight"].float(), weights["dt_proj.bias"].float())
    x = _batched(run, run.needed(f"{name}.x_proj.hook_in"))[..., None]
    dt, A = nn.functional.softplus(dt), -weights["A_log"].float().exp()
    return Recurrence(x, dt, A, B[:, :, None], C[:, :, None], weights["D"].float(), heads=False)


def _second(run: Run, layer: int, mixer: Any) -> Recurrence:
    name, weights = f"blocks.{layer}.mixer", dict(mixer.named_parameters())
    projected = _batched(run, run.needed(f"{name}.in_proj.hook_out"))
    n_heads, taps = weights["dt_bias"].numel(), weights["conv1d.weight"].float()
    inner, mixed = weights["norm.weight"].numel(), len(taps)
    _, mixed_in, dt = projected.split([inner, mixed, n_heads], -1)
    padded = nn.functional.pad(mixed_in.mT, (taps.shape[-1] - 1, 0))
    bias = weights["conv1d.bias"].float() if "conv1d.bias" in weights else None
    x, B, C = _split(nn.functional.conv1d(padded, taps, bias, groups=mixed).mT, mixer, inner)
    low, high = mixer.time_step_limit
    steps = nn.functional.softplus(dt + weights["dt_bias"].float()).clamp(low, high)
    A = -weights["A_log"].float().exp()[:, None]
    return Recurrence(x.unflatten(-1, (n_heads, -1)), steps, A, B, C, weights["D"].float(), heads=True)


def _split(convolved: Tensor, mixer: Any, inner: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [batch, pos, inner], and B and C [batch, pos, head, state], which the heads of a group share."""
    shared = (convolved.shape[-1] - inner) // 2
    active: Tensor = mixer.act(convolved)
    x, B, C = active.split([inner, shared, shared], -1)
    groups, n_heads = mixer.n_groups, mixer.num_heads
    B, C = (part.unflatten(-1, (groups, -1)).repeat_interleave(n_heads // groups, 2) for part in (B, C))
    return x, B, C


def _batched(run: Run, value: Tensor) -> Float[Tensor, "batch pos width"]:
    return (value if run.has_batch_dim else value[None]).float()


_MIXERS = {"MambaMixer": _first, "Mamba2Mixer": _second}
"""What reads each class of mixers of transformers."""

KNOWN = frozenset(_MIXERS)
"""The classes of mixers whose recurrence is known."""


def asked_for(mixers: Mapping[int, nn.Module], layer: int, n_layers: int) -> nn.Module:
    """The mixer of a layer.

    Raises:
        UndefinedDecompositionError: the layer is no state space with a known recurrence.
    """
    number = layer + n_layers if layer < 0 else layer
    if number not in mixers:
        having = ", ".join(map(str, mixers)) or "none"
        raise UndefinedDecompositionError(
            f"Layer {layer} has no state space whose recurrence is known here ({', '.join(sorted(KNOWN))} of "
            f"transformers, seen through TransformerBridge). Layers that have one: {having}."
        )
    return mixers[number]
