"""The bridge against the transformers model it wraps, in one run: forward, caching, generation, booting."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.timing import Ratio, ratios
from transformer_lens import TransformerBridge

SHAPES = {"1x32": (1, 32), "8x128": (8, 128), "1x1024": (1, 1024)}
FORWARD = {"1x32": 1.15, "8x128": 1.05, "1x1024": 1.05}
EARLY = 2


def forward_rows(shape: str, rounds: int) -> list[tuple[str, Ratio, float]]:
    """(what, ratio, target) for forward passes on GPT-2 small's shape."""
    hf = GPT2LMHeadModel(GPT2Config()).eval()
    eager = copy.deepcopy(hf)
    eager.set_attn_implementation("eager")
    bridge = TransformerBridge.boot_transformers(hf_model=hf)
    tokens = torch.randint(0, 1000, SHAPES[shape])
    streams = [f"blocks.{layer}.hook_resid_post" for layer in range(12)]
    ways: dict[str, Callable[[], object]] = {
        "hf": lambda: hf(tokens, use_cache=False).logits,
        "eager": lambda: eager(tokens, use_cache=False).logits,
        "no hooks": lambda: bridge(tokens),
        "all resid_post cached": lambda: bridge.run_with_cache(tokens, names_filter=streams),
        "one early layer, nothing returned": lambda: bridge.run_with_cache(
            tokens, names_filter=streams[EARLY - 1], return_type=None
        ),
        "everything cached": lambda: bridge.run_with_cache(tokens),
    }
    against = ratios(ways, "hf", rounds)
    # The layers that run, beside what is no layer: embeddings before them run too, the unembedding does not.
    layer = _share_of_layers(hf, tokens, rounds)
    rows = [
        (f"{shape} no hooks", against["no hooks"], FORWARD[shape]),
        (f"{shape} all resid_post cached", against["all resid_post cached"], 1.10),
        (f"{shape} {EARLY} of 12 layers, nothing returned", against["one early layer, nothing returned"], layer * 1.1),
    ]
    cached, base = against["everything cached"], against["eager"]
    everything = Ratio(cached.wall / base.wall, cached.processor / base.processor)
    return [*rows, (f"{shape} everything cached, against eager", everything, 1.10)]


def _share_of_layers(hf: GPT2LMHeadModel, tokens: torch.Tensor, rounds: int) -> float:
    """What embeddings and the first layers cost, as a share of a whole forward pass: a model of as many layers."""
    short = GPT2LMHeadModel(GPT2Config(n_layer=EARLY)).eval().transformer
    measured = ratios({"whole": lambda: hf(tokens, use_cache=False), "short": lambda: short(tokens, use_cache=False)},
                      "whole", rounds)  # fmt: skip
    return measured["short"].processor


def generation_rows(rounds: int) -> list[tuple[str, Ratio, float]]:
    """Greedy generation at batch 1, plain and with a steering hook."""
    hf = GPT2LMHeadModel(GPT2Config()).eval()
    bridge = TransformerBridge.boot_transformers(hf_model=hf)
    tokens = torch.randint(0, 1000, (1, 16))
    direction = torch.randn(768)
    common = {"max_new_tokens": 24, "do_sample": False}
    mask = torch.ones_like(tokens)

    def steered() -> object:
        with bridge.hooks(fwd_hooks=[("blocks.6.hook_resid_post", lambda stream, hook: stream + direction)]):
            return bridge.generate(tokens, stop_at_eos=False, verbose=False, **common)

    ways: dict[str, Callable[[], object]] = {
        "hf": lambda: hf.generate(tokens, attention_mask=mask, eos_token_id=None, pad_token_id=0, **common),
        "ours": lambda: bridge.generate(tokens, stop_at_eos=False, verbose=False, **common),
        "steered": steered,
    }
    measured = ratios(ways, "hf", rounds)
    return [("generate, batch 1", measured["ours"], 1.10), ("generate, steered", measured["steered"], 1.15)]


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"torch threads: {torch.get_num_threads()}; GPT-2 small's shape; ratios to raw transformers, {rounds} rounds")
    with torch.no_grad():
        rows = [row for shape in SHAPES for row in forward_rows(shape, 4 * rounds if shape == "1x32" else rounds)]
        rows += generation_rows(rounds)
    for what, ratio, target in rows:
        figures = f"{ratio.wall:5.2f} x by the clock, {ratio.processor:5.2f} x of the processor"
        print(f"{what:50s} {figures} (target {target:.2f})", flush=True)


if __name__ == "__main__":
    main()
