"""Distributed alignment search (DAS) for next tokens: the subspace that holds a variable, judged on pairs held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.steering.bases import LearnedSubspace
from transformer_lens.steering.das import Exchanges, frozen
from transformer_lens.steering.exchange import Interchanges
from transformer_lens.steering.interchanges import SubspaceInterchange, collect_activations
from transformer_lens.steering.values import orthonormal


@dataclass(frozen=True, eq=False)
class Alignment:
    """A subspace that was found, and how well interchanges in it give the labels.

    Attributes:
        hook: the hook point.
        pos: the position.
        basis: orthonormal rows that span it, [k, d].
        accuracy: interchange intervention accuracy on pairs that were held out, from 0 to 1.
        train_accuracy: the same on the pairs it was found with.
        losses: mean cross-entropy of the labels at each step, in nats.
    """

    hook: str
    pos: int
    basis: Float[Tensor, "k d"]
    accuracy: float
    train_accuracy: float
    losses: list[float]


def find_subspace(
    model: Any,
    pairs: Interchanges,
    hook: str,
    dimensions: int,
    *,
    pos: int = -1,
    steps: int = 200,
    batch_size: int = 32,
    learning_rate: float = 0.02,
    held_out: float = 0.25,
    seed: int = 0,
    verbose: bool = False,
) -> Alignment:
    """The subspace whose interchange between two runs best gives the labels.

    A rotation of the activation is learned by gradient through the model, whose weights stay; only as many of its rows
    as the subspace has dimensions are kept. Source: Geiger et al., arXiv 2303.02536 (DAS).

    Args:
        model: any model with hooks.
        pairs: runs and labels; they are shuffled, and a part of them is held out.
        hook: a hook point with axes [batch, pos, d].
        dimensions: of the subspace.
        pos: the position at which values are exchanged, in both runs.
        steps: of Adam.
        batch_size: pairs in a step.
        learning_rate: of Adam.
        held_out: the share of pairs on which the accuracy is measured.
        seed: of the start and of the order of pairs; torch's own generator is left alone.
        verbose: show a progress bar.

    Raises:
        ValueError: more dimensions than the activation has, or too few pairs to hold some out.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> tokens = model.to_tokens(["The Eiffel Tower is in", "The Colosseum is in"])
        >>> cities = torch.tensor([model.to_single_token(" Paris"), model.to_single_token(" Rome")])
        >>> pairs = Interchanges(tokens.repeat(2, 1), tokens.flip(0).repeat(2, 1), cities.flip(0).repeat(2))
        >>> found = find_subspace(model, pairs, "blocks.3.hook_resid_mid", 4, steps=20)
        >>> found.basis.shape, found.accuracy
        (torch.Size([4, 128]), 1.0)
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    n_held_out = round(held_out * len(pairs))
    if not 0 < n_held_out < len(pairs):
        raise ValueError(f"Of {len(pairs)} pairs, held_out={held_out} keeps {n_held_out}: some must be on each side.")
    with frozen(model):
        kept, test = (
            _exchanges(model, some, hook, pos, batch_size) for some in (pairs[n_held_out:], pairs[:n_held_out])
        )
    width, count = kept.sources.shape[-1], len(kept.targets)
    if not 0 < dimensions <= width:
        raise ValueError(f"{hook} has {width} dimensions; got dimensions={dimensions}.")
    subspace = LearnedSubspace(width, dimensions, seed=seed).to(kept.sources.device)
    drawn = [torch.randint(0, count, (min(batch_size, count),), generator=generator) for _ in range(steps)]
    losses = kept.learn(subspace, drawn, lr=learning_rate, verbose=verbose)
    columns = subspace.basis.detach().clone()
    accuracy, train_accuracy = (_accuracy(some, columns, batch_size) for some in (test, kept))
    return Alignment(hook, pos, columns.T, accuracy, train_accuracy, losses)


@torch.no_grad()
def interchange_accuracy(
    model: Any,
    pairs: Interchanges,
    hook: str,
    subspace: Float[Tensor, "... d"],
    *,
    pos: int = -1,
    batch_size: int = 32,
) -> float:
    """The share of pairs for which exchanging the subspace makes the label the likeliest token (IIA), from 0 to 1.

    Args:
        model, pairs, hook, pos: as in `find_subspace`.
        subspace: directions that span it.
        batch_size: pairs that are run together.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> tokens = model.to_tokens(["The Eiffel Tower is in", "The Colosseum is in"])
        >>> cities = torch.tensor([model.to_single_token(" Paris"), model.to_single_token(" Rome")])
        >>> pairs = Interchanges(tokens, tokens.flip(0), cities.flip(0))
        >>> interchange_accuracy(model, pairs, "blocks.3.hook_resid_mid", torch.eye(128))
        1.0
    """
    return _accuracy(_exchanges(model, pairs, hook, pos, batch_size), orthonormal(subspace).T, batch_size)


def _next_token(model: Any, tokens: Int[Tensor, "pair pos"]) -> Float[Tensor, "pair d_vocab"]:
    logits: Tensor = model(tokens)[:, -1]
    return logits


def _exchanges(model: Any, pairs: Interchanges, hook: str, pos: int, batch_size: int) -> Exchanges:
    """The pairs, with the activation at the position in each source run."""
    positions = torch.full((len(pairs),), pos)
    sources = collect_activations(model, hook, pairs.source, _next_token, positions=positions, batch_size=batch_size)
    return Exchanges(model, hook, _next_token, pairs.base, sources, pairs.label, positions)


@torch.no_grad()
def _accuracy(exchanges: Exchanges, columns: Float[Tensor, "d k"], batch_size: int) -> float:
    change, right = SubspaceInterchange(columns), 0
    for rows in torch.arange(len(exchanges.targets)).split(batch_size):
        logits = exchanges.logits(change, rows)
        right += int((logits.argmax(-1).cpu() == exchanges.targets[rows].cpu()).sum())
    return right / len(exchanges.targets)
