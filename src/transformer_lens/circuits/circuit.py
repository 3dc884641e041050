"""A circuit: which edges of a model's graph are kept, and what each is worth."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from transformer_lens.errors import ConfigurationError
from transformer_lens.patching.nodes import Nodes

FORMAT = "transformer_lens circuit"


@dataclass(frozen=True, eq=False)
class Circuit:
    """A graph of senders and receivers, a score for each edge, and the edges that are kept.

    Attributes:
        nodes: the model's nodes.
        scores: what each edge is worth, [sender, receiver]; zero where nobody has said. Its size is what counts.
        kept: which edges are in the circuit, [sender, receiver].
        about: anything worth knowing (task, method, date), as strings; it is saved too.

    Example:
        >>> nodes = Nodes(n_layers=1, n_heads=1, n_key_heads=1)
        >>> scores = torch.rand(nodes.edges.shape)
        >>> circuit = Circuit.of(nodes, scores).top(3)
        >>> circuit.n_edges, Circuit.of(nodes, scores).n_edges
        (3, 8)
    """

    nodes: Nodes
    scores: Float[Tensor, "sender receiver"]
    kept: Bool[Tensor, "sender receiver"]
    about: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, matrix in (("scores", self.scores), ("kept", self.kept)):
            if matrix.shape != self.nodes.edges.shape:
                expected = tuple(self.nodes.edges.shape)
                raise ValueError(f"{name} has shape {tuple(matrix.shape)}; a graph of these nodes has {expected}.")
        if bool((self.kept.cpu() & ~self.nodes.edges).any()):
            raise ValueError("kept holds pairs that are no edges: a receiver reads only what was written before.")

    @classmethod
    def of(
        cls, model: Any, scores: Float[Tensor, "sender receiver"] | None = None, about: dict[str, str] | None = None
    ) -> Self:
        """The whole graph of a model (or of its `Nodes`): every edge kept."""
        nodes = model if isinstance(model, Nodes) else Nodes.of(model)
        filled = torch.zeros(nodes.edges.shape) if scores is None else scores.detach().cpu().float()
        return cls(nodes, filled, nodes.edges.clone(), dict(about or {}))

    # --- what is in it --------------------------------------------------------------------------------------------

    @property
    def n_edges(self) -> int:
        """How many edges are kept."""
        return int(self.kept.sum())

    @property
    def edges(self) -> list[tuple[str, str, float]]:
        """The kept edges as (sender, receiver, score), from the largest score to the smallest, by size."""
        pairs = [(sender, receiver, float(self.scores[sender, receiver])) for sender, receiver in self._pairs()]
        pairs.sort(key=lambda edge: -abs(edge[2]))
        return [(self.nodes.senders[s].label, self.nodes.receivers[r].label, score) for s, r, score in pairs]

    def _pairs(self) -> list[tuple[int, int]]:
        return [(sender, receiver) for sender, receiver in self.kept.nonzero().tolist()]

    @property
    def parts(self) -> list[str]:
        """The senders that have a kept edge, in their order."""
        return [self.nodes.senders[place].label for place in self.kept.any(1).nonzero()[:, 0].tolist()]

    # --- choosing edges -------------------------------------------------------------------------------------------

    def keeping(self, kept: Bool[Tensor, "sender receiver"]) -> Circuit:
        """The same graph with these edges kept."""
        return replace(self, kept=kept.cpu() & self.nodes.edges)

    def top(self, n: int) -> Circuit:
        """The n kept edges with the largest scores, by size.

        Raises:
            ValueError: fewer are kept.
        """
        self._check_count(n)
        sizes = self.scores.abs().masked_fill(~self.kept, -1.0).flatten()
        kept = torch.zeros_like(self.kept).flatten()
        kept[sizes.topk(n).indices] = True
        return self.keeping(kept.view_as(self.kept))

    def above(self, threshold: float) -> Circuit:
        """The kept edges whose score is larger than this, by size."""
        return self.keeping(self.kept & (self.scores.abs() > threshold))

    def greedy(self, n: int) -> Circuit:
        """N kept edges, grown from the logits: the largest edge into what is there already, again and again.

        So every edge leads to the logits (Hanna et al. 2024, arXiv 2403.17806). There may be fewer, if no more lead
        there.

        Raises:
            ValueError: fewer edges are kept.
        """
        self._check_count(n)
        receivers_of = _receivers_of(self.nodes)
        chosen, reached = torch.zeros_like(self.kept), {-1}
        heap: list[tuple[float, int, int]] = []

        def reach(receivers: Sequence[int]) -> None:
            for receiver in receivers:
                for sender in self.kept[:, receiver].nonzero()[:, 0].tolist():
                    heapq.heappush(heap, (-abs(float(self.scores[sender, receiver])), sender, receiver))

        reach([len(self.nodes.receivers) - 1])
        while heap and int(chosen.sum()) < n:
            _, sender, receiver = heapq.heappop(heap)
            if chosen[sender, receiver]:
                continue
            chosen[sender, receiver] = True
            if sender not in reached:
                reached.add(sender)
                reach(receivers_of[sender])
        return self.keeping(chosen)

    def connected(self) -> Circuit:
        """The kept edges that lie on a way from the input to the logits; the others change nothing.

        An edge from a part that reads nothing but the other run carries the other run's value in any case, and what
        flows into a part that nobody reads ends there. (In families with a norm after attention that is not quite so:
        the norm's scale depends on all heads of a layer.)
        """
        kept, before = self.kept.clone(), -1
        while int(kept.sum()) != before:
            before = int(kept.sum())
            kept[~self._fed(kept)] = False
            kept[:, ~self._read(kept)] = False
        return self.keeping(kept)

    def _fed(self, kept: Tensor) -> Bool[Tensor, "sender"]:
        fed = torch.zeros(len(self.nodes.senders), dtype=torch.bool)
        fed[0] = True
        for receiver, senders in zip(kept.any(0).tolist(), self.nodes.owners, strict=True):
            if receiver:
                fed[list(senders)] = True
        return fed

    def _read(self, kept: Tensor) -> Bool[Tensor, "receiver"]:
        written = kept.any(1)
        return torch.tensor([not senders or bool(written[list(senders)].any()) for senders in self.nodes.owners])

    def without(self, *labels: str) -> Circuit:
        """The circuit without these senders: none of their edges is kept.

        Raises:
            UnknownNameError: a label that is no sender's.
        """
        kept = self.kept.clone()
        kept[[self.nodes.sender(label) for label in labels]] = False
        return self.keeping(kept)

    def _check_count(self, n: int) -> None:
        if not 0 <= n <= self.n_edges:
            raise ValueError(f"n is from 0 to the {self.n_edges} edges that are kept; got {n}.")

    # --- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write it as JSON: sizes, and each edge with its score and whether it is kept. Returns the path."""
        senders, receivers = self.nodes.senders, self.nodes.receivers
        edges = [
            [senders[s].label, receivers[r].label, float(self.scores[s, r]), bool(self.kept[s, r])]
            for s, r in self.nodes.edges.nonzero().tolist()
        ]
        fields = {"format": FORMAT, "version": 1, "nodes": asdict(self.nodes), "about": self.about}
        lines = ",\n".join(json.dumps(edge) for edge in edges)
        target = Path(path)
        target.write_text(f'{json.dumps(fields, indent=1)[:-2]},\n "edges": [\n{lines}\n]}}\n', encoding="utf-8")
        return target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The circuit of a file.

        Raises:
            ConfigurationError: the file holds something else.
        """
        try:
            held = json.loads(Path(path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{path} holds no circuit: it is no JSON ({error}).") from error
        if not isinstance(held, dict) or held.get("format") != FORMAT or held.get("version") != 1:
            raise ConfigurationError(f"{path} holds no circuit of version 1: its format is not {FORMAT!r}.")
        nodes = Nodes(**held["nodes"])
        circuit = cls.of(nodes, about=held["about"])
        senders = {sender.label: place for place, sender in enumerate(nodes.senders)}
        receivers = {receiver.label: place for place, receiver in enumerate(nodes.receivers)}
        for sender, receiver, score, kept in held["edges"]:
            place = senders[sender], receivers[receiver]
            circuit.scores[place], circuit.kept[place] = score, kept
        return circuit


def _receivers_of(nodes: Nodes) -> list[list[int]]:
    """For each sender the receivers that feed it."""
    found: list[list[int]] = [[] for _ in nodes.senders]
    for receiver, senders in enumerate(nodes.owners):
        for sender in senders:
            found[sender].append(receiver)
    return found
