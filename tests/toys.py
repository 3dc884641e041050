"""Small models of every kind, with no parameter left at zero or one."""

from typing import Any

import torch

from transformer_lens import HookedTransformer

BASE = {
    "n_layers": 2,
    "d_model": 16,
    "n_ctx": 24,
    "d_head": 4,
    "n_heads": 4,
    "d_vocab": 31,
    "device": "cpu",
    "d_mlp": 20,
}
ROTARY = {"positional_embedding_type": "rotary", "normalization_type": "RMS"}
LOCAL = {"use_local_attn": True, "window_size": 3, "attn_types": ["global", "local"]}
KINDS: dict[str, dict[str, Any]] = {
    "attn_only": {"attn_only": True, "normalization_type": None, "d_mlp": None},
    "plain": {"act_fn": "gelu_new"},
    "no_weights_in_norms": {"normalization_type": "LNPre"},
    "parallel_rotary": {"positional_embedding_type": "rotary", "rotary_dim": 2, "parallel_attn_mlp": True},
    "gated_grouped": {**ROTARY, "act_fn": "silu", "gated_mlp": True, "n_key_value_heads": 2},
    "ungrouped": {**ROTARY, "n_key_value_heads": 2, "ungroup_grouped_query_attention": True},
    "norms_around": {
        **ROTARY, "use_normalization_before_and_after": True, "use_qk_norm": True, "post_embedding_ln": True,
        "attn_scores_soft_cap": 1.5, "output_logits_soft_cap": 2.0, "n_key_value_heads": 1,
    },
    "experts": {**ROTARY, "act_fn": "silu", "gated_mlp": True, "num_experts": 3, "experts_per_token": 2, "d_mlp": 12},
    "shortformer": {"positional_embedding_type": "shortformer"},
    "alibi": {"positional_embedding_type": "alibi"},
    "windows": {**LOCAL, "act_fn": "gelu_fast"},
    "windows_rotary": {**ROTARY, **LOCAL, "rotary_base_local": 50},
    "sinks": {**ROTARY, "use_attention_sinks": True, "n_key_value_heads": 2},
    "bidirectional": {"attention_dir": "bidirectional"},
    "norm_in_mlp": {"act_fn": "solu_ln"},
}  # fmt: skip
CAUSAL = [kind for kind in KINDS if kind != "bidirectional"]
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])


def toy(kind: str = "plain", seed: int = 0, **fields: Any) -> HookedTransformer:
    """A model of this kind, every parameter drawn at random."""
    model = HookedTransformer({**BASE, **KINDS[kind], **fields})
    randomise(model, seed)
    return model


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Draw every parameter anew, norm weights about one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * 0.3
        parameter.copy_(1 + drawn if name.endswith(".w") else drawn)


def hook_count(model: torch.nn.Module) -> int:
    """How many hooks are on the model."""
    return sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.hook_dict.values())
