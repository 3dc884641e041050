"""Sweeps against the loop of one hooked run for each cell, on both hosts.

    python -m benchmarks.sweeps                      GPT-2 small's shape, 16 tokens, batch 1 and 8
    python -m benchmarks.sweeps growth               a smaller model, over layers, positions and batch
    python -m benchmarks.sweeps --device cuda --model 1b --tokens 64
    python -m benchmarks.sweeps memory               peak memory of each way, in a process of its own

The loop is timed on every `--share`th of its cells, before and after the sweep.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.native_forward import GPT2
from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.patching import Intervention, LogitDifference, Metric, Sweep, sweep
from transformer_lens.patching.loop import loop_cell
from transformer_lens.patching.plain_run import RunRequest

SIZES = {"gpt2": (12, 768, 12, 50257), "1b": (16, 2048, 32, 50257), "small": (6, 128, 4, 1000)}
METRICS: dict[str, Metric] = {
    "built-in difference": LogitDifference(1, 2),
    "callable, last position": lambda logits: logits[:, -1, 1] - logits[:, -1, 2],
    # The whole logits of each cell must be put together; the sum itself costs little, which is the same in both ways.
    "callable, every logit": lambda logits: logits.mean((1, 2)),
    "callable, log-probability": lambda logits: logits.log_softmax(-1)[:, -1, 1],
}


@dataclass
class Study:
    """One model and two prompts, which differ from two thirds on."""

    model: Any
    corrupted: torch.Tensor
    cells: dict[str, list[Intervention]]


def make_model(host: str, layers: int, d_model: int, heads: int, vocabulary: int, device: str) -> Any:
    torch.manual_seed(0)
    if host == "native":
        sizes = {"n_layers": layers, "d_model": d_model, "n_heads": heads, "d_head": d_model // heads}
        return HookedTransformer({**GPT2, **sizes, "d_vocab": vocabulary, "device": device})
    sizes = {"n_layer": layers, "n_embd": d_model, "n_head": heads, "vocab_size": vocabulary}
    hf = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval().to(device)
    return TransformerBridge.boot_transformers(hf_model=hf)


def make_study(model: Any, batch: int, tokens: int) -> Study:
    torch.manual_seed(1)
    vocabulary, device = model.cfg.d_vocab, next(model.parameters()).device
    corrupted = torch.randint(1, vocabulary, (batch, tokens), device=device)
    clean, changed = corrupted.clone(), tokens * 2 // 3 + 1
    clean[:, changed:] = torch.randint(1, vocabulary, (batch, tokens - changed), device=device)
    layers, heads = range(model.cfg.n_layers), range(model.cfg.n_heads)
    names = [f"blocks.{layer}.{hook}" for layer in layers for hook in ("hook_resid_pre", "attn.hook_z")]
    _, cache = model.run_with_cache(clean, names_filter=names)
    cells = {
        "resid_pre": [
            Intervention(f"blocks.{layer}.hook_resid_pre", cache, pos=pos) for layer in layers for pos in range(tokens)
        ],
        "heads": [Intervention(f"blocks.{layer}.attn.hook_z", cache, head=head) for layer in layers for head in heads],
    }
    return Study(model, corrupted, cells)


def looped(study: Study, cells: list[Intervention], metric: Metric) -> torch.Tensor:
    request = RunRequest(study.corrupted, None, [])
    return torch.stack([loop_cell(study.model, request, cell, metric) for cell in cells])


def seconds(work: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Processor time on a CPU; by the clock on an accelerator."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    result = work().cpu()
    return clock() - start, result


def compare(study: Study, kind: str, metric: Metric, share: int) -> tuple[float, float]:
    """How many times faster the sweep is, and its relative error."""
    cells, part = study.cells[kind], study.cells[kind][::share]
    before, expected = seconds(lambda: looped(study, part, metric))
    swept, found = seconds(lambda: sweep(study.model, study.corrupted, cells, metric, verbose=False))
    after, _ = seconds(lambda: looped(study, part, metric))
    error = float((found[::share] - expected).abs().max() / expected.abs().max())
    return (before + after) / 2 * len(cells) / len(part) / swept, error


def tables(options: argparse.Namespace) -> None:
    sizes = SIZES[options.model]
    for host in options.hosts:
        model = make_model(host, *sizes, options.device)
        for batch in options.batches:
            study = make_study(model, batch, options.tokens)
            for kind in study.cells:
                for name, metric in METRICS.items():
                    compare(study, kind, metric, 10 * len(study.cells[kind])) if options.device != "cpu" else None
                    ratio, error = compare(study, kind, metric, options.share)
                    where = f"{host}, batch {batch}, {kind}, {name}"
                    print(f"{where:60s} {ratio:5.1f} x  (relative error {error:.0e})", flush=True)
                print(
                    "   ",
                    Sweep(model, study.corrupted, study.cells[kind], METRICS["built-in difference"]).plan.describe(),
                )


def growth(options: argparse.Namespace) -> None:
    metric = METRICS["callable, last position"]
    _, d_model, heads, vocabulary = SIZES["small"]
    shapes = [(layers, 16, 1) for layers in (2, 4, 8, 16)]
    shapes += [(6, tokens, 1) for tokens in (8, 16, 32, 64)] + [(6, 16, batch) for batch in (1, 4, 16)]
    for layers, tokens, batch in shapes:
        study = make_study(
            make_model(options.hosts[0], layers, d_model, heads, vocabulary, options.device), batch, tokens
        )
        found = [compare(study, kind, metric, options.share)[0] for kind in study.cells]
        cells = [f"{kind} {ratio:5.1f} x" for kind, ratio in zip(study.cells, found, strict=True)]
        print(f"{layers:2d} layers, {tokens:2d} tokens, batch {batch:2d}: {', '.join(cells)}", flush=True)


def memory(options: argparse.Namespace) -> None:
    """Peak memory of whole processes that do one thing each; the model is a part of it."""
    for host in options.hosts:
        for batch in options.batches:
            for kind in ("resid_pre", "heads"):
                peaks = {}
                for way in ("nothing", "loop", "sweep"):
                    command = [sys.executable, "-m", "benchmarks.sweeps", "peak", "--way", way, "--kind", kind]
                    command += ["--hosts", host, "--batches", str(batch), "--tokens", str(options.tokens)]
                    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    peaks[way] = int(output)
                ratio = peaks["sweep"] / peaks["loop"]
                print(f"{host}, batch {batch}, {kind}: {ratio:.2f} of the loop's peak {peaks}", flush=True)


def peak(options: argparse.Namespace) -> None:
    model = make_model(options.hosts[0], *SIZES[options.model], options.device)
    study, metric = make_study(model, options.batches[0], options.tokens), METRICS["callable, every logit"]
    if options.way == "loop":
        looped(study, study.cells[options.kind][:4], metric)
    elif options.way == "sweep":
        sweep(model, study.corrupted, study.cells[options.kind], metric, verbose=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main(arguments: list[str] | None = None) -> None:
    """Print the chosen tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", default="tables", choices=["tables", "growth", "memory", "peak"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="gpt2", choices=list(SIZES))
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--hosts", nargs="+", default=["native", "bridge"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--share", type=int, default=16)
    parser.add_argument("--way", default="nothing")
    parser.add_argument("--kind", default="heads")
    options = parser.parse_args(arguments)
    with torch.no_grad():
        {"tables": tables, "growth": growth, "memory": memory, "peak": peak}[options.what](options)


if __name__ == "__main__":
    main()
