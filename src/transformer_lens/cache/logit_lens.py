"""The logit lens of a cache: what the model would predict, if it stopped at each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.cache.attribution import token_ids
from transformer_lens.cache.decompose import streams_until
from transformer_lens.cache.logit_readout import FinalComparison, LogitLensResult, LogitReadout, ReturnType
from transformer_lens.cache.run import Run, as_slice
from transformer_lens.cache.run import stream as stream_entering
from transformer_lens.hooks import SliceInput

Lens = Callable[[Tensor, int], Tensor]
"""What is done to the stream entering a layer before it is read. The final stream is read as it is."""


def logit_lens(
    run: Run,
    *,
    layers: Sequence[int] | None = None,
    incl_mid: bool = False,
    positions: SliceInput = -1,
    batch_slice: SliceInput = None,
    lens: Lens | None = None,
    apply_ln: bool = True,
    vocab: Sequence[int] | Int[Tensor, "selected"] | None = None,
    targets: Any = None,
    return_type: ReturnType = "logits",
    top_k: int | None = None,
    chunk_size: int = 64,
    enable_grad: bool = False,
    compare_to_final: bool = False,
) -> LogitLensResult:
    """The final norm and the unembedding on the stream entering each layer. See `ActivationCache.logit_lens`.

    With compare_to_final the result's `readout.final` compares each distribution with the model's own, which no lens
    changes; the last hook_resid_post must have been cached.
    """
    reader = _reader(
        run, lens=lens, apply_ln=apply_ln, return_type=return_type, top_k=top_k, vocab=vocab, targets=targets
    )

    def selected(stream: Tensor) -> Tensor:
        here = as_slice(positions).apply(stream, dim=-2)
        return as_slice(batch_slice).apply(here, dim=0) if run.has_batch_dim else here

    streams = list(_streams(run, layers, incl_mid))
    with torch.set_grad_enabled(enable_grad):
        vectors = [(layer, selected(stream)) for _, layer, stream in streams]
        final = selected(stream_entering(run, run.n_layers)) if compare_to_final else None
        columns = reader.read(vectors, final, chunk_size)
    has_batch_dim = run.has_batch_dim and as_slice(batch_slice).mode != "int"
    return LogitLensResult(
        reader.readout(columns), [label for label, _, _ in streams], has_batch_dim, _target_names(targets)
    )


def read_vectors(
    run: Run,
    vectors: Float[Tensor, "*row d_model"],
    *,
    apply_ln: bool = True,
    vocab: Sequence[int] | Int[Tensor, "selected"] | None = None,
    targets: Any = None,
    return_type: ReturnType = "logits",
    top_k: int | None = None,
    chunk_size: int = 64,
    enable_grad: bool = False,
) -> LogitReadout:
    """Any vectors of the stream's width, read as the final stream is. See `transformer_lens.lenses.logit_readout`."""
    reader = _reader(
        run, lens=None, apply_ln=apply_ln, return_type=return_type, top_k=top_k, vocab=vocab, targets=targets
    )
    with torch.set_grad_enabled(enable_grad):
        columns = reader.read([(run.n_layers, vectors)], None, chunk_size)
    return reader.readout(_Columns(*(None if column is None else column[0] for column in columns)))


def _target_names(targets: Any) -> list[str | None] | None:
    if targets is None or isinstance(targets, Tensor):
        return None
    given = [targets] if isinstance(targets, str | int) else list(targets)
    return [target if isinstance(target, str) else None for target in given]


def _reader(
    run: Run,
    *,
    lens: Lens | None,
    apply_ln: bool,
    return_type: ReturnType,
    top_k: int | None,
    vocab: Any,
    targets: Any,
) -> _Reader:
    if return_type not in ("logits", "probs", "log_probs"):
        raise ValueError(f'return_type is "logits", "probs" or "log_probs"; got {return_type!r}.')
    if vocab is not None and top_k is not None:
        raise ValueError("Give vocab (these tokens) or top_k (the likeliest), not both.")
    return _Reader(
        run,
        lens=lens,
        apply_ln=apply_ln,
        return_type=return_type,
        top_k=top_k,
        vocab=None if vocab is None else torch.as_tensor(vocab),
        targets=None if targets is None else token_ids(run, targets).flatten(),
    )


def _streams(run: Run, layers: Sequence[int] | None, incl_mid: bool) -> Iterator[tuple[str, int, Tensor]]:
    n_layers = run.n_layers
    wanted = [layer + n_layers + 1 if layer < 0 else layer for layer in layers] if layers is not None else None
    for layer in wanted or ():
        if not 0 <= layer <= n_layers:
            raise ValueError(f"layers are from 0 to {n_layers} ({n_layers} or -1: the final stream); got {layer}.")
    if wanted == []:
        raise ValueError("layers is empty: name at least one, or None for all.")
    for label, stream in streams_until(run, n_layers, incl_mid=incl_mid, only=wanted):
        yield label, n_layers if label == "final_post" else int(label.split("_")[0]), stream


class _Columns(NamedTuple):
    """What is read of some rows; None: not asked for."""

    values: Tensor | None
    entropy: Tensor | None
    top_ids: Tensor | None
    target_ranks: Tensor | None
    target_probabilities: Tensor | None
    kl: Tensor | None
    final_rank: Tensor | None


@dataclass(frozen=True)
class _Reader:
    """Reads vectors chunk by chunk: few chunks of logits exist beside what is asked for, whatever the layers."""

    run: Run
    lens: Lens | None
    apply_ln: bool
    return_type: ReturnType
    top_k: int | None
    vocab: Tensor | None
    targets: Tensor | None

    def read(
        self, streams: Sequence[tuple[int, Float[Tensor, "*row d_model"]]], final: Tensor | None, chunk_size: int
    ) -> _Columns:
        """Each column with a leading axis over streams, which are given with their layers.

        The chunks of rows are the outer loop, so that a chunk's final distribution is computed once for all layers.
        """
        if chunk_size < 1:
            raise ValueError(f"chunk_size is at least 1; got {chunk_size}.")
        shape = streams[0][1].shape[:-1]
        flat = [(layer, vectors.reshape(-1, vectors.shape[-1])) for layer, vectors in streams]
        last = None if final is None else final.reshape(-1, final.shape[-1])
        pieces: list[list[_Columns]] = [[] for _ in flat]
        for start in range(0, max(shape.numel(), 1), chunk_size):
            rows = slice(start, start + chunk_size)
            goal = None if last is None else self._distribution(last[rows])
            for done, (layer, vectors) in zip(pieces, flat, strict=True):
                here = vectors[rows]
                lens = None if layer == self.run.n_layers else self.lens
                done.append(self._chunk(here if lens is None else lens(here, layer), goal))
        joined = [[_joined(column, shape) for column in zip(*done, strict=True)] for done in pieces]
        return _Columns(*(None if rows[0] is None else torch.stack(rows) for rows in zip(*joined, strict=True)))

    def readout(self, columns: _Columns) -> LogitReadout:
        """The columns, with what was asked for."""
        assert columns.values is not None
        assert columns.entropy is not None
        compared = None
        if columns.kl is not None and columns.final_rank is not None:
            compared = FinalComparison(columns.kl, columns.final_rank)
        return LogitReadout(
            columns.values, self.return_type, columns.entropy, columns.top_ids, self.vocab, self.targets,
            columns.target_ranks, columns.target_probabilities, compared, self.apply_ln,
        )  # fmt: skip

    def _distribution(self, vectors: Tensor) -> Tensor:
        """The model's own log-probabilities."""
        readout = self.run.readout
        return _wide(readout.logits(readout.normed(vectors))).log_softmax(-1)

    def _chunk(self, vectors: Tensor, goal: Tensor | None) -> _Columns:
        readout = self.run.readout
        logits = readout.logits(readout.normed(vectors) if self.apply_ln else vectors)
        log_probs = _wide(logits).log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        values = {"logits": logits, "probs": log_probs.exp(), "log_probs": log_probs}[self.return_type]
        top_ids = ranks = of_targets = kl = final_rank = None
        if self.targets is not None:
            ids = self.targets.to(logits.device)
            ranks = torch.stack([_rank(logits, column) for column in logits[:, ids].T], -1)
            of_targets = log_probs[:, ids].exp()
        if goal is not None:
            kl = (goal.exp() * (goal - log_probs)).sum(-1)
            final_rank = _rank(logits, logits.gather(-1, goal.argmax(-1, keepdim=True))[:, 0])
        if self.top_k is not None:
            top_ids = logits.topk(self.top_k, -1).indices
            values = values.gather(-1, top_ids)
        if self.vocab is not None:
            values = values[:, self.vocab.to(values.device)]
        return _Columns(values, entropy, top_ids, ranks, of_targets, kl, final_rank)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _rank(logits: Float[Tensor, "row d_vocab"], of: Float[Tensor, "row"]) -> Int[Tensor, "row"]:
    return (logits > of[:, None]).sum(-1)


def _joined(chunks: Sequence[Tensor | None], shape: torch.Size) -> Tensor | None:
    """The chunks of one column, one after another, with the axes of the rows again."""
    present = [chunk for chunk in chunks if chunk is not None]
    if not present:
        return None
    column = torch.cat(present)
    return column.reshape((*shape, *column.shape[1:]))
