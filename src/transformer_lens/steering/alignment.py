"""Distributed alignment search (DAS): the subspace of an activation that holds a variable, found by gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrizations import orthogonal
from tqdm.auto import tqdm

from transformer_lens.hooks.interventions import Intervention
from transformer_lens.steering.exchange import Interchanges
from transformer_lens.steering.values import Exchanged, orthonormal


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
    kept, test = pairs[n_held_out:], pairs[:n_held_out]
    with torch.no_grad(), frozen(model):
        sources, test_sources = _values(model, kept, hook, pos), _values(model, test, hook, pos)
    width = sources.shape[-1]
    if not 0 < dimensions <= width:
        raise ValueError(f"{hook} has {width} dimensions; got dimensions={dimensions}.")
    rotation = learned_rotation(width, dimensions, seed, sources)
    optimizer, losses = torch.optim.Adam(rotation.parameters(), lr=learning_rate), []
    with torch.enable_grad(), frozen(model):
        for _ in tqdm(range(steps), disable=not verbose, leave=False):
            rows = torch.randint(0, len(kept), (min(batch_size, len(kept)),), generator=generator)
            logits = _exchanged_logits(model, kept[rows], sources[rows], rotation.weight, (hook, pos))
            loss = cross_entropy(logits.float(), kept.label[rows].to(logits.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    basis = rotation.weight.detach().clone()
    accuracies = [
        _accuracy(model, some, values, basis, (hook, pos), batch_size)
        for some, values in ((test, test_sources), (kept, sources))
    ]
    return Alignment(hook, pos, basis, accuracies[0], accuracies[1], losses)


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
    sources = _values(model, pairs, hook, pos)
    return _accuracy(model, pairs, sources, orthonormal(subspace), (hook, pos), batch_size)


def learned_rotation(width: int, dimensions: int, seed: int, like: Tensor) -> Any:
    """A linear layer with orthonormal rows that can be learned, on `like`'s device; torch's generator stays.

    Example:
        >>> rows = learned_rotation(4, 2, seed=0, like=torch.empty(0)).weight
        >>> torch.allclose(rows @ rows.T, torch.eye(2), atol=1e-6)
        True
    """
    # NOTE: both the layer and `orthogonal` draw from torch's own generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return orthogonal(nn.Linear(width, dimensions, bias=False)).to(like.device)


def _values(model: Any, pairs: Interchanges, hook: str, pos: int) -> Float[Tensor, "pair d"]:
    """The activation at the position, in each source run."""
    _, cache = model.run_with_cache(
        pairs.source, names_filter=hook, return_type=None, return_cache_object=False, pos_slice=pos
    )
    value: Tensor = cache[hook]
    if value.ndim != 3:
        raise ValueError(f"A subspace is sought in an activation [batch, pos, d]; {hook} has {value.ndim} axes.")
    return value[:, 0]


def _exchanged_logits(
    model: Any, pairs: Interchanges, sources: Tensor, basis: Tensor, at: tuple[str, int]
) -> Float[Tensor, "pair d_vocab"]:
    hook, pos = at
    with model.edit(Intervention(hook, Exchanged(sources[:, None], basis), pos=pos)):
        logits: Tensor = model(pairs.base)[:, -1]
    return logits


@torch.no_grad()
def _accuracy(
    model: Any, pairs: Interchanges, sources: Tensor, basis: Tensor, at: tuple[str, int], batch_size: int
) -> float:
    right = 0
    for start in range(0, len(pairs), batch_size):
        rows = slice(start, start + batch_size)
        logits = _exchanged_logits(model, pairs[rows], sources[rows], basis, at)
        right += int((logits.argmax(-1).cpu() == pairs.label[rows].cpu()).sum())
    return right / len(pairs)


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """While this lasts, the model's weights need no gradient, so that none goes below the hook point."""
    needing = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in needing:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in needing:
            parameter.requires_grad_(True)
