"""Edge attribution patching: an estimate of every edge's patch at once.

An edge carries what a sender writes into one receiver's input. Patching it changes that input by a difference that is
known, and the gradient at the input says what a small change does: their product is the edge's score (EAP, Syed et al.
2023, arXiv 2310.10348). One gradient, at one end, sees only the slope there; averaged on the way from one run to the
other it sees what is passed through (EAP-IG, Hanna et al. 2024, arXiv 2403.17806, after Sundararajan et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.hooks import HookPoint
from transformer_lens.patching.edges import Written, written
from transformer_lens.patching.gradients import ENTRY, Hook, gradients
from transformer_lens.patching.metrics import Metric
from transformer_lens.patching.nodes import Nodes

EdgeMethod = Literal["EAP", "EAP-IG-inputs", "EAP-IG-activations", "clean-corrupted"]
EdgeScores = Float[Tensor, "sender receiver"]


@torch.no_grad()
def edge_attribution(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    source_tokens: Int[Tensor, "batch pos"],
    metric: Metric,
    *,
    method: EdgeMethod = "EAP-IG-inputs",
    steps: int = 5,
) -> EdgeScores:
    """For each edge an estimate of how much the metric changes when that edge alone carries the other run's values.

    Args:
        model: of either host.
        tokens: the plain run (for circuits: the clean one).
        source_tokens: the other run (the corrupted one), of as many tokens.
        metric: a differentiable function of logits; its mean is meant, and the scores have its unit.
        method: where the gradient is taken. "EAP": in the plain run. "clean-corrupted": in both runs, and averaged.
            "EAP-IG-inputs": in `steps` runs whose embeddings lie between the two. "EAP-IG-activations": for the senders
            of each part of each layer, in `steps` runs in which just what they write lies between the two.
        steps: how many points between the two runs (midpoints of as many equal pieces). It costs so many passes forward
            and back, for "EAP-IG-activations" that many for each attention and each MLP.

    Returns:
        [sender, receiver], in the order of `Nodes.of(model)`; zero for pairs that are no edges.

    Raises:
        ValueError: an unknown method, steps below 1, or runs of different shape.
        UndefinedPathError: the model has no such edges, or the metric no gradient.

    Example:
        >>> from transformer_lens import HookedTransformer, demo
        >>> from transformer_lens.patching import LogitDifference
        >>> model, prompts = HookedTransformer.from_pretrained("demo"), demo.ioi(4)
        >>> metric = LogitDifference(prompts.answer_tokens, prompts.wrong_tokens)
        >>> scores, nodes = edge_attribution(model, prompts.tokens, prompts.corrupted_tokens, metric), Nodes.of(model)
        >>> bool(scores[nodes.sender("L0H0"), nodes.receiver("L1H0.q")] < -1)
        True
    """
    if method not in get_args(EdgeMethod):
        raise ValueError(f"{method!r} is no method: {', '.join(get_args(EdgeMethod))}.")
    if steps < 1:
        raise ValueError(f"steps is 1 or more; got {steps}.")
    if tokens.shape != source_tokens.shape:
        raise ValueError(f"Both runs need one shape; got {tuple(tokens.shape)} and {tuple(source_tokens.shape)}.")
    nodes = Nodes.of(model)
    plain, source = (written(model, run, nodes) for run in (tokens, source_tokens))
    change = source - plain
    shares = [(step + 0.5) / steps for step in range(steps)]
    run = lambda *edits: _Slopes(nodes, gradients(model, tokens, _input_hooks(nodes), metric, edits=edits))  # noqa: E731
    match method:
        case "EAP":
            return run().scores(change)
        case "clean-corrupted":
            entered = run(_moved_entry(source[:, :, 0]))
            return (run().scores(change) + entered.scores(change)) / 2
        case "EAP-IG-inputs":
            between = (plain[:, :, 0] + share * change[:, :, 0] for share in shares)
            return _mean(run(_moved_entry(stream)).scores(change) for stream in between)
    total = torch.zeros(nodes.edges.shape, device=change.device)
    for part, hook in _parts(nodes):
        moved = change[:, :, part].sum(2)
        scores = _mean(run((hook, _adding(share * moved))).scores(change) for share in shares)
        total[part] = scores[part]
    return total


def _mean(tensors: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(0)


def _input_hooks(nodes: Nodes) -> list[str]:
    return list(dict.fromkeys(receiver.hook for receiver in nodes.receivers))


class _Slopes:
    """The gradients at all receivers' inputs in one run."""

    def __init__(self, nodes: Nodes, found: dict[str, Tensor]):
        self.nodes = nodes
        self.found = found

    def scores(self, change: Written) -> EdgeScores:
        """For each edge what the sender's change gains by the gradient at the receiver's input."""
        scores = torch.zeros(self.nodes.edges.shape, device=change.device)
        for hook, members in groupby(enumerate(self.nodes.receivers), lambda entry: entry[1].hook):
            places = list(members)
            first, reads = places[0][0], places[0][1].reads
            gradient = self.found[hook]
            each = gradient if places[0][1].head is not None else gradient.unsqueeze(2)  # [batch, pos, head, d_model]
            gained = torch.einsum("bpsd,bphd->sh", change[:, :, :reads], each.to(change.dtype))
            scores[:reads, first : first + len(places)] = gained.float()
        return scores


def _moved_entry(stream: Float[Tensor, "batch pos d_model"]) -> Hook:
    # NOTE: added as a difference of values, so that the leaf before it still has the gradient.
    return ENTRY, lambda now, hook: now + (stream - now.detach())


def _parts(nodes: Nodes) -> Iterator[tuple[slice, str]]:
    """The senders that write together, and where they do."""
    yield slice(0, 1), ENTRY
    start = 1
    for layer in range(nodes.n_layers):
        for hook, size in (("hook_attn_out", nodes.n_heads), ("hook_mlp_out", int(nodes.has_mlps))):
            if size:
                yield slice(start, start + size), f"blocks.{layer}.{hook}"
                start += size


def _adding(difference: Float[Tensor, "batch pos d_model"]) -> Callable[..., Tensor]:
    def add(now: Tensor, hook: HookPoint) -> Tensor:
        return now + difference

    return add
