"""What the number of hook points costs a pass: a bridge over 48 narrow layers of 128 experts, against transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from benchmarks.timing import ratios
from transformer_lens import TransformerBridge

HOOK = "blocks.3.hook_resid_post"


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    config = Qwen3MoeConfig(
        num_hidden_layers=48, hidden_size=8, intermediate_size=8, moe_intermediate_size=4, num_experts=128,
        num_experts_per_tok=2, num_attention_heads=2, num_key_value_heads=1, head_dim=4, vocab_size=50,
    )  # fmt: skip
    hf = Qwen3MoeForCausalLM(config).eval()
    bridge = TransformerBridge.boot_transformers(hf_model=hf)
    tokens = torch.randint(0, 50, (1, 4))
    ways: dict[str, Callable[[], object]] = {
        "transformers": lambda: hf(tokens, use_cache=False).logits,
        "no hooks": lambda: bridge(tokens),
        "one hook": lambda: bridge.run_with_hooks(tokens, fwd_hooks=[(HOOK, lambda stream, hook: None)]),
        "one name cached, nothing returned": lambda: bridge.run_with_cache(tokens, names_filter=HOOK, return_type=None),
    }
    print(f"torch threads: {torch.get_num_threads()}; {len(bridge.hook_dict)} hook points; {rounds} rounds")
    with torch.no_grad():
        for what, ratio in ratios(ways, "transformers", rounds).items():
            print(f"{what:40s} {ratio.wall:5.2f} x by the clock, {ratio.processor:5.2f} x of the processor", flush=True)


if __name__ == "__main__":
    main()
