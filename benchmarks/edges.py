"""Many edges, paths and candidate edges as rows of a batch, against one run for each.

    python -m benchmarks.edges                       GPT-2's shape with 4 layers, 16 tokens, batch 1, both hosts

One run for each is timed on a sample of the cells, before and after.
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.sweeps import make_model, seconds
from transformer_lens.patching import (
    LogitDifference,
    Nodes,
    edge_attribution,
    part_labels,
    path_patch,
    run_with_edges,
    written,
)

METRIC = LogitDifference(1, 2)


def compare(name: str, many: Callable[[], torch.Tensor], one: Callable[[], torch.Tensor], times: float) -> None:
    """Print how many times faster `many` is than `one`, which does the work of one of `times` cells."""
    many(), one()
    before, _ = seconds(one)
    taken, _ = seconds(many)
    after, _ = seconds(one)
    print(f"{name:60s} {(before + after) / 2 * times / taken:6.1f} x", flush=True)


def table(host: str, layers: int, tokens: int) -> None:
    model = make_model(host, layers, 768, 12, 50257, "cpu")
    clean, other = (torch.randint(1, 50257, (1, tokens)) for _ in range(2))
    nodes = Nodes.of(model)
    source = written(model, other, nodes)
    senders, receivers = nodes.edges.nonzero(as_tuple=True)
    some = slice(None, None, max(1, len(senders) // 64))
    weights = torch.zeros(len(senders[some]), *nodes.edges.shape)
    weights[torch.arange(len(weights)), senders[some], receivers[some]] = 1

    def run_edges(which: torch.Tensor) -> torch.Tensor:
        return torch.stack([METRIC(logits) for logits in run_with_edges(model, clean, source, which)])

    compare(f"{host}: single edges", lambda: run_edges(weights), lambda: run_edges(weights[:1]), len(weights))
    compare(
        f"{host}: EAP, all {len(senders)} edges, against exact edges one by one",
        lambda: edge_attribution(model, clean, other, METRIC, method="EAP"),
        lambda: run_edges(weights[:1]),
        len(senders),
    )
    heads = part_labels(model, "heads")

    def paths(some_heads: list[str]) -> torch.Tensor:
        return path_patch(model, clean, other, senders=some_heads, receivers=["logits", "L3H0.q"], metric=METRIC)

    compare(f"{host}: paths from {len(heads)} heads", lambda: paths(heads), lambda: paths(heads[:1]), len(heads))


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--hosts", nargs="+", default=["native", "bridge"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with torch.no_grad():
        for host in options.hosts:
            table(host, options.layers, options.tokens)


if __name__ == "__main__":
    main()
