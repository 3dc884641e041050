"""The native host against raw transformers with SDPA: forward, caching, one early layer, generation, import."""

import subprocess
import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.timing import Ratio, ratios
from transformer_lens import HookedTransformer

SHAPES = {"8x128": (8, 128), "1x1024": (1, 1024), "1x32": (1, 32)}
TARGETS = {"8x128": 1.10, "1x1024": 1.10, "1x32": 1.2}


GPT2 = {
    "n_layers": 12,
    "d_model": 768,
    "d_head": 64,
    "n_heads": 12,
    "n_ctx": 1024,
    "d_vocab": 50257,
    "act_fn": "gelu_new",
}
LLAMA = {
    **{"n_layers": 12, "d_model": 768, "d_head": 64, "n_heads": 12, "n_ctx": 2048, "d_vocab": 32000, "d_mlp": 2048},
    **{"n_key_value_heads": 4, "act_fn": "silu", "gated_mlp": True, "normalization_type": "RMS"},
    **{"positional_embedding_type": "rotary", "rotary_dim": 64},
}


def gpt2_small() -> PreTrainedModel:
    """GPT-2 small with random weights."""
    return GPT2LMHeadModel(GPT2Config()).eval()


def llama_like() -> PreTrainedModel:
    """A Llama of GPT-2 small's size, with grouped heads."""
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    )
    return LlamaForCausalLM(config).eval()


def rows(name: str, hf: PreTrainedModel, model: HookedTransformer, rounds: int) -> list[tuple[str, Ratio, float]]:
    """(what, ratio, target) for one shape of model."""
    found = []
    for shape, size in SHAPES.items():
        tokens = torch.randint(0, 1000, size)
        ways = {
            "hf": lambda tokens=tokens: hf(tokens, use_cache=False).logits,
            "forward": lambda tokens=tokens: model(tokens),
            "cache everything": lambda tokens=tokens: model.run_with_cache(tokens),
            "layer 2 of 12": lambda tokens=tokens: model.run_with_cache(
                tokens, return_type=None, names_filter="blocks.2.hook_resid_pre"
            ),
        }
        measured = ratios(ways, "hf", rounds if shape != "1x32" else 4 * rounds)
        found.append((f"{name} {shape} forward", measured["forward"], TARGETS[shape]))
        found.append((f"{name} {shape} everything cached", measured["cache everything"], 1.15))
        found.append((f"{name} {shape} two layers of 12, nothing returned", measured["layer 2 of 12"], 2 / 12 * 1.1))
    return found


def generation_row(rounds: int) -> tuple[str, Ratio, float]:
    """Greedy generation at batch 1."""
    hf = gpt2_small()
    model = HookedTransformer(GPT2)
    tokens = torch.randint(0, 1000, (1, 16))
    common = {"max_new_tokens": 24, "do_sample": False}
    mask = torch.ones_like(tokens)
    ways = {
        "hf": lambda: hf.generate(tokens, attention_mask=mask, eos_token_id=None, pad_token_id=0, **common),
        "ours": lambda: model.generate(tokens, stop_at_eos=False, verbose=False, **common),
    }
    return "gpt2 generate, batch 1", ratios(ways, "hf", rounds)["ours"], 1.2


def import_seconds(statement: str) -> float:
    """Seconds that a fresh interpreter takes for an import, the least of five."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return min(float(run.stdout) for run in runs)


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"torch threads: {torch.get_num_threads()}; ratios to raw transformers with SDPA, median of {rounds} rounds")
    with torch.no_grad():
        table = [*rows("gpt2", gpt2_small(), HookedTransformer(GPT2), rounds)]
        table += rows("llama", llama_like(), HookedTransformer(LLAMA), rounds)
        table.append(generation_row(rounds))
    for what, ratio, target in table:
        figures = f"{ratio.wall:5.2f} x by the clock, {ratio.processor:5.2f} x of the processor"
        print(f"{what:60s} {figures} (target {target:.2f})")
    beyond = import_seconds("from transformer_lens import HookedTransformer") - import_seconds("import torch")
    print(f"{'import of HookedTransformer beyond torch':60s} {beyond:5.2f} s   (target 0.80)")


if __name__ == "__main__":
    main()
