"""The logit lens of a cache: what the model would predict, if it stopped at each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.cache.attribution import token_ids
from transformer_lens.cache.decompose import streams_until
from transformer_lens.cache.run import Run, as_slice
from transformer_lens.cache.run import stream as stream_entering
from transformer_lens.hooks import SliceInput

ReturnType = Literal["logits", "probs", "log_probs"]
Lens = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class LogitReadout:
    """Vectors of the stream, read in the vocabulary.

    Attributes:
        values: logits, probabilities or log-probabilities (nats): of all tokens, of `vocab_ids`, or of `top_ids`.
        return_type: which of them.
        entropy: of the whole distribution, in nats.
        top_ids: the likeliest tokens, best first, where top_k was asked for.
        vocab_ids: the tokens asked for, where a part of the vocabulary was.
        target_ids: the targets asked for.
        target_ranks: how many tokens are likelier than each target (0: it is the likeliest).
        target_probabilities: the probability of each target.
        final: how each distribution compares with the one that the model ends with, where that was asked for.
    """

    values: Float[Tensor, "*row selected"]
    return_type: ReturnType
    entropy: Float[Tensor, "*row"]
    top_ids: Int[Tensor, "*row k"] | None = None
    vocab_ids: Int[Tensor, "selected"] | None = None
    target_ids: Int[Tensor, "target"] | None = None
    target_ranks: Int[Tensor, "*row target"] | None = None
    target_probabilities: Float[Tensor, "*row target"] | None = None
    final: FinalComparison | None = None


@dataclass(frozen=True)
class FinalComparison:
    """How distributions compare with the model's final one at the same place.

    Attributes:
        kl: Kullback-Leibler divergence of the final distribution from each, in nats.
        rank: how many tokens are likelier in each than the token that the model ends with (its likeliest).
    """

    kl: Float[Tensor, "*row"]
    rank: Int[Tensor, "*row"]


@dataclass(frozen=True)
class LogitLensResult:
    """What each layer's stream predicts.

    Attributes:
        readout: values and the rest, each with a leading axis over layers.
        labels: "0_pre", "0_mid", …, "final_post": which stream each is.
        has_batch_dim: whether a batch axis follows.
    """

    readout: LogitReadout
    labels: list[str]
    has_batch_dim: bool

    @property
    def values(self) -> Float[Tensor, "layer *batch_and_pos selected"]:
        """The values of the readout."""
        return self.readout.values

    def rank_trajectory(self, target: int = 0) -> Int[Tensor, "layer *batch_and_pos"]:
        """How many tokens are likelier than a target, layer by layer; `target` counts through those asked for.

        Raises:
            ValueError: no targets were asked for.
        """
        if self.readout.target_ranks is None:
            raise ValueError("No targets were asked for: logit_lens(targets=…).")
        return self.readout.target_ranks[..., target]

    def top_tokens(self, tokenizer: Any) -> dict[str, Any]:
        """The likeliest tokens as text by label, nested by batch, position and rank.

        Args:
            tokenizer: what decodes ids, with `decode(list of ids)`.

        Raises:
            ValueError: top_k was not asked for.
        """
        if self.readout.top_ids is None:
            raise ValueError("No likeliest tokens were asked for: logit_lens(top_k=…).")
        ids = self.readout.top_ids.tolist()
        return {label: _decoded(row, tokenizer) for label, row in zip(self.labels, ids, strict=True)}


def _decoded(ids: Any, tokenizer: Any) -> Any:
    return [_decoded(row, tokenizer) for row in ids] if isinstance(ids, list) else tokenizer.decode([ids])


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
    if return_type not in ("logits", "probs", "log_probs"):
        raise ValueError(f'return_type is "logits", "probs" or "log_probs"; got {return_type!r}.')
    if vocab is not None and top_k is not None:
        raise ValueError("Give vocab (these tokens) or top_k (the likeliest), not both.")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is at least 1; got {chunk_size}.")
    reader = _Reader(
        run,
        lens=lens,
        apply_ln=apply_ln,
        return_type=return_type,
        top_k=top_k,
        vocab=None if vocab is None else torch.as_tensor(vocab),
        targets=None if targets is None else token_ids(run, targets).flatten(),
    )

    def selected(stream: Tensor) -> Tensor:
        here = as_slice(positions).apply(stream, dim=-2)
        return as_slice(batch_slice).apply(here, dim=0) if run.has_batch_dim else here

    streams = list(_streams(run, layers, incl_mid))
    with torch.set_grad_enabled(enable_grad):
        vectors = [(layer, selected(stream)) for _, layer, stream in streams]
        final = selected(stream_entering(run, run.n_layers)) if compare_to_final else None
        columns = reader.read(vectors, final, chunk_size)
    assert columns.values is not None
    assert columns.entropy is not None
    compared = None
    if columns.kl is not None and columns.final_rank is not None:
        compared = FinalComparison(columns.kl, columns.final_rank)
    readout = LogitReadout(
        columns.values, return_type, columns.entropy, columns.top_ids, reader.vocab, reader.targets,
        columns.target_ranks, columns.target_probabilities, compared,
    )  # fmt: skip
    has_batch_dim = run.has_batch_dim and as_slice(batch_slice).mode != "int"
    return LogitLensResult(readout, [label for label, _, _ in streams], has_batch_dim)


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
        shape = streams[0][1].shape[:-1]
        flat = [(layer, vectors.reshape(-1, vectors.shape[-1])) for layer, vectors in streams]
        last = None if final is None else final.reshape(-1, final.shape[-1])
        pieces: list[list[_Columns]] = [[] for _ in flat]
        for start in range(0, max(shape.numel(), 1), chunk_size):
            rows = slice(start, start + chunk_size)
            goal = None if last is None else self._distribution(last[rows])
            for done, (layer, vectors) in zip(pieces, flat, strict=True):
                here = vectors[rows]
                done.append(self._chunk(here if self.lens is None else self.lens(here, layer), goal))
        joined = [[_joined(column, shape) for column in zip(*done, strict=True)] for done in pieces]
        return _Columns(*(None if rows[0] is None else torch.stack(rows) for rows in zip(*joined, strict=True)))

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
    return column.reshape(*shape, *column.shape[1:])
