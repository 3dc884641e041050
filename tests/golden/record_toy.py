"""Record what transformer-lens 3.9.0 computes for toy configurations, as the truth for our own native host.

Run in an environment of its own (`pip install transformer-lens==3.9.0`), never in this project's:
`python tests/golden/record_toy.py`. Files are named like those recorded before it: NAME.json holds the configuration,
NAME.weights.safetensors the state dict, NAME.safetensors every activation, the logits and the loss.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from transformer_lens import HookedTransformer, HookedTransformerConfig

FOLDER = Path(__file__).parent / "toy"
BASE = {"n_layers": 2, "d_model": 16, "n_ctx": 24, "d_head": 4, "n_heads": 4, "d_vocab": 31, "device": "cpu", "seed": 0}
PLAIN = {"d_mlp": 24, "act_fn": "gelu_new"}
ROTARY = {**PLAIN, "positional_embedding_type": "rotary", "rotary_dim": 4, "normalization_type": "RMS"}
CONFIGS = {
    "20_shortformer": {"attn_only": True, "positional_embedding_type": "shortformer"},
    "21_alibi": {**PLAIN, "positional_embedding_type": "alibi", "normalization_type": "RMS"},
    "23_solu_ln": {"d_mlp": 24, "act_fn": "solu_ln"},
    "24_silu_gated_gqa": {**ROTARY, "act_fn": "silu", "gated_mlp": True, "n_key_value_heads": 2},
    "25_gelu_fast_local": {
        "d_mlp": 24, "act_fn": "gelu_fast", "use_local_attn": True, "window_size": 3, "attn_types": ["global", "local"],
    },
    "26_final_rms_adjacent_extra_hooks": {
        **PLAIN, "final_rms": True, "positional_embedding_type": "rotary", "rotary_dim": 4,
        "rotary_adjacent_pairs": True, "use_attn_result": True, "use_split_qkv_input": True,
        "use_hook_mlp_in": True, "use_hook_tokens": True,
    },
    "27_attn_in": {**PLAIN, "use_attn_in": True, "use_attn_result": True},
    "28_ungroup_split_qkv": {
        **PLAIN, "n_key_value_heads": 2, "ungroup_grouped_query_attention": True, "use_split_qkv_input": True,
    },
    "29_ungroup_rotary": {**ROTARY, "n_key_value_heads": 2, "ungroup_grouped_query_attention": True},
    "30_gqa_split_qkv": {**ROTARY, "n_key_value_heads": 2, "use_split_qkv_input": True},
    "31_local_base_local_by_parts": {
        **ROTARY, "use_local_attn": True, "window_size": 4, "attn_types": ["global", "local"], "rotary_base": 500,
        "rotary_base_local": 50, "use_NTK_by_parts_rope": True, "NTK_original_ctx_len": 6, "NTK_by_parts_factor": 4.0,
        "d_head": 8, "rotary_dim": 8,
    },
    "32_linear_scaling": {**ROTARY, "rotary_scaling_factor": 4.0, "d_head": 8, "rotary_dim": 8},
    "34_yarn": {
        **ROTARY, "use_yarn_rope": True, "yarn_factor": 4.0, "yarn_attention_factor": 1.2,
        "yarn_original_max_position_embeddings": 6, "d_head": 8, "rotary_dim": 8, "rotary_base": 300,
    },
    "35_yarn_global_only_no_truncate": {
        **ROTARY, "use_yarn_rope": True, "yarn_factor": 4.0, "yarn_attention_factor": 1.2, "yarn_truncate": False,
        "yarn_original_max_position_embeddings": 6, "yarn_global_attn_only": True, "d_head": 8, "rotary_dim": 8,
        "use_local_attn": True, "window_size": 4, "attn_types": ["global", "local"], "rotary_base": 300,
    },
    "36_sinks": {**ROTARY, "use_attention_sinks": True, "n_key_value_heads": 2},
    "37_clip_qkv": {**ROTARY, "clip_qkv": 0.3},
    "38_moe_norm_topk": {
        **ROTARY, "act_fn": "silu", "gated_mlp": True, "num_experts": 4, "experts_per_token": 2, "norm_topk_prob": True,
    },
    "39_xielu": {**ROTARY, "act_fn": "xielu"},
    "41_bidirectional_rotary": {**ROTARY, "attention_dir": "bidirectional"},
    "43_lnpre_solu": {"d_mlp": 24, "act_fn": "solu", "normalization_type": "LNPre"},
    "46_post_embedding_ln_standard": {**PLAIN, "post_embedding_ln": True},
    "47_pre_norms_solu_ln": {"d_mlp": 24, "act_fn": "solu_ln", "normalization_type": "LNPre"},
    "48_linear_scaling_local_base": {
        **ROTARY, "use_local_attn": True, "window_size": 4, "attn_types": ["global", "local"], "rotary_base_local": 50,
        "rotary_scaling_factor": 4.0, "d_head": 8, "rotary_dim": 8,
    },
}  # fmt: skip
# Not recorded: what 3.9 refuses (quick_gelu, no positions, layer norms before and after), and what it ignores in
# silence: dynamic NTK, log-n attention, W_in beside a gate with solu_ln. Nor alibi for a number of heads that is no
# power of two, where transformers (and the paper) have other slopes.


def main() -> None:
    tokens = torch.from_numpy(np.load(FOLDER / "tokens.npy"))
    for name, fields in CONFIGS.items():
        model = HookedTransformer(HookedTransformerConfig(**{**BASE, **fields}))
        torch.manual_seed(sum(map(ord, name)))
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape) * 0.35 + (0.8 if parameter.ndim == 1 else 0.0)
        logits, cache = model.run_with_cache(tokens)
        loss = model(tokens, return_type="loss")
        per_token = model(tokens, return_type="loss", loss_per_token=True)
        dropped = ("mask", "IGNORE", "rotary_sin", "rotary_cos", "alibi")
        weights = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith(dropped)}
        arrays = {k: v.contiguous().clone() for k, v in cache.items()}
        arrays |= {
            "logits": logits.detach().clone(),
            "loss": loss.detach(),
            "loss_per_token": per_token.detach().clone(),
        }
        save_file(weights, FOLDER / f"{name}.weights.safetensors")
        save_file(arrays, FOLDER / f"{name}.safetensors")
        (FOLDER / f"{name}.json").write_text(json.dumps({"handmade": {**BASE, **fields}}, indent=1))
        print(name, len(arrays))


if __name__ == "__main__":
    main()
