"""Sweeps against the loop of one hooked run for each cell, on a model of GPT-2 small's shape, 16 tokens."""

import sys
import time

import torch

from benchmarks.native_forward import GPT2
from transformer_lens import HookedTransformer
from transformer_lens.cache.activation_cache import ActivationCache
from transformer_lens.patching import Intervention, LogitDifference, Metric, plan, sweep


def loop(model: HookedTransformer, tokens: torch.Tensor, cells: list[Intervention], metric: Metric) -> torch.Tensor:
    """One run with a hook for each cell."""
    results = []
    for cell in cells:

        def edit(activation: torch.Tensor, hook: object, cell: Intervention = cell) -> None:
            positions = cell.positions(tokens.shape[1])
            index = cell.index(positions)
            activation[index] = cell.new_value(activation[index], positions)

        results.append(metric(model.run_with_hooks(tokens, fwd_hooks=[(cell.hook, edit)])))
    return torch.stack(results)


def kinds(cache: ActivationCache, length: int) -> dict[str, list[Intervention]]:
    """The cells of each kind of sweep."""
    layers = range(GPT2["n_layers"])
    return {
        "resid_pre, layer x position": [
            Intervention(f"blocks.{layer}.hook_resid_pre", cache, pos=pos) for layer in layers for pos in range(length)
        ],
        "head outputs, all positions": [
            Intervention(f"blocks.{layer}.attn.hook_z", cache, head=head) for layer in layers for head in range(12)
        ],
    }


@torch.no_grad()
def main() -> None:
    """Print the table; the loop is timed on a part of its cells."""
    share = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    torch.manual_seed(0)
    model = HookedTransformer(GPT2)
    for batch in (1, 8):
        corrupted = torch.randint(0, 50000, (batch, 16))
        clean = corrupted.clone()
        clean[:, 11:] = torch.randint(0, 50000, (batch, 5))
        _, cache = model.run_with_cache(clean)
        for kind, cells in kinds(cache, 16).items():
            metrics = {
                "any callable": lambda logits: logits[:, -1, 1] - logits[:, -1, 2],
                "built-in": LogitDifference(1, 2),
            }
            for name, metric in metrics.items():
                part = cells[::share]
                start = time.process_time()
                expected = loop(model, corrupted, part, metric)
                looped = (time.process_time() - start) * len(cells) / len(part)
                start = time.process_time()
                found = sweep(model, corrupted, cells, metric)
                swept = time.process_time() - start
                error = float((found[::share] - expected).abs().max() / expected.abs().max())
                print(f"batch {batch}, {kind}, {name}: {looped / swept:.1f} x (relative error {error:.0e})", flush=True)
            print(f"    {plan(model, corrupted, cells).describe()}")


if __name__ == "__main__":
    main()
