"""The logit lens of a cache: what the model would predict, if it stopped at each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.cache.attribution import token_ids
from transformer_lens.cache.decompose import streams_until
from transformer_lens.cache.run import Run, as_slice
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
    """

    values: Float[Tensor, "*row selected"]
    return_type: ReturnType
    entropy: Float[Tensor, "*row"]
    top_ids: Int[Tensor, "*row k"] | None = None
    vocab_ids: Int[Tensor, "selected"] | None = None
    target_ids: Int[Tensor, "target"] | None = None
    target_ranks: Int[Tensor, "*row target"] | None = None


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
) -> LogitLensResult:
    """The final norm and the unembedding on the stream entering each layer. See `ActivationCache.logit_lens`."""
    if return_type not in ("logits", "probs", "log_probs"):
        raise ValueError(f'return_type is "logits", "probs" or "log_probs"; got {return_type!r}.')
    if vocab is not None and top_k is not None:
        raise ValueError("Give vocab (these tokens) or top_k (the likeliest), not both.")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is at least 1; got {chunk_size}.")
    reader = _Reader(
        run,
        apply_ln=apply_ln,
        return_type=return_type,
        top_k=top_k,
        chunk_size=chunk_size,
        vocab=None if vocab is None else torch.as_tensor(vocab),
        targets=None if targets is None else token_ids(run, targets).flatten(),
    )
    labels, rows = [], []
    with torch.set_grad_enabled(enable_grad):
        for label, layer, stream in _streams(run, layers, incl_mid):
            here = as_slice(positions).apply(stream, dim=-2)
            here = as_slice(batch_slice).apply(here, dim=0) if run.has_batch_dim else here
            rows.append(reader.read(here if lens is None else lens(here, layer)))
            labels.append(label)
        columns = [None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True)]
    values, entropy, top_ids, ranks = columns
    assert values is not None
    assert entropy is not None
    return LogitLensResult(
        LogitReadout(values, return_type, entropy, top_ids, reader.vocab, reader.targets, ranks),
        labels,
        run.has_batch_dim and as_slice(batch_slice).mode != "int",
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


@dataclass(frozen=True)
class _Reader:
    """Reads vectors chunk by chunk: no more than chunk_size rows of logits exist beside what is asked for."""

    run: Run
    apply_ln: bool
    return_type: ReturnType
    top_k: int | None
    chunk_size: int
    vocab: Tensor | None
    targets: Tensor | None

    def read(self, vectors: Float[Tensor, "*row d_model"]) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Values, entropy, top ids and ranks."""
        chunks = [self._chunk(chunk) for chunk in vectors.reshape(-1, vectors.shape[-1]).split(self.chunk_size)]
        joined = [None if column[0] is None else torch.cat(column) for column in zip(*chunks, strict=True)]
        shape = vectors.shape[:-1]
        values, entropy, top_ids, ranks = [
            None if column is None else column.reshape(*shape, *column.shape[1:]) for column in joined
        ]
        assert values is not None
        assert entropy is not None
        return values, entropy, top_ids, ranks

    def _chunk(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        readout = self.run.readout
        logits = readout.logits(readout.normed(vectors) if self.apply_ln else vectors)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        log_probs = wide.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        values = {"logits": logits, "probs": log_probs.exp(), "log_probs": log_probs}[self.return_type]
        top_ids = ranks = None
        if self.targets is not None:
            of_targets = logits[:, self.targets.to(logits.device)]
            ranks = torch.stack([(logits > column[:, None]).sum(-1) for column in of_targets.T], -1)
        if self.top_k is not None:
            top_ids = logits.topk(self.top_k, -1).indices
            values = values.gather(-1, top_ids)
        if self.vocab is not None:
            values = values[:, self.vocab.to(values.device)]
        return values, entropy, top_ids, ranks
