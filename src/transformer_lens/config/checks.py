"""What a HookedTransformerConfig refuses: unknown values, contradictions, and fields that would have no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from transformer_lens.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

ACTIVATIONS = (
    "relu", "relu2", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "silu", "solu", "solu_ln",
    "xielu", "tanh",
)  # fmt: skip
CHOICES = {
    "positional_embedding_type": ("standard", "rotary", "shortformer", "alibi", "none", "relative_positional_bias"),
    "normalization_type": (None, "LN", "LNPre", "RMS", "RMSPre"),
    "attention_dir": ("causal", "bidirectional"),
    "init_mode": ("gpt2", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "muP"),
}
# A field that acts only together with another: setting it alone would be ignored.
NEEDS = {
    "window_size": ("use_local_attn",),
    "rotary_base_local": ("use_local_attn",),
    "train_seq_length": ("use_dynamic_ntk_rope", "use_logn_attn"),
    "experts_per_token": ("num_experts",),
    "num_experts": ("experts_per_token",),
    "norm_topk_prob": ("num_experts",),
    "softmax_over_chosen_experts": ("num_experts",),
    "expert_biases": ("num_experts",),
    "clamped_glu_limit": ("num_experts",),
    "d_shared_expert": ("num_experts",),
    "qk_norm_across_heads": ("use_qk_norm",),
    "qk_layer_norm": ("use_qk_norm",),
    "gated_mlp_biases": ("gated_mlp",),
    "longrope_short_factors": ("longrope_long_factors",),
    "longrope_long_factors": ("longrope_short_factors",),
    "longrope_original_ctx": ("longrope_short_factors",),
    "longrope_attention_factor": ("longrope_short_factors",),
    "ungroup_grouped_query_attention": ("n_key_value_heads",),
    "yarn_global_attn_only": ("use_local_attn",),
}
ROTARY_ONLY = (
    "rotary_dim", "rotary_base", "rotary_layers", "rotary_base_local", "rotary_scaling_factor", "rotary_adjacent_pairs",
    "use_dynamic_ntk_rope", "use_NTK_by_parts_rope", "use_yarn_rope", "use_logn_attn", "longrope_short_factors",
)  # fmt: skip
RELATIVE = ("relative_attention_num_buckets", "relative_attention_max_distance")
EXTENSIONS = ("use_dynamic_ntk_rope", "use_NTK_by_parts_rope", "use_yarn_rope", "longrope_short_factors")


def check(cfg: HookedTransformerConfig, given: set[str]) -> None:
    """Refuse what contradicts itself.

    Args:
        cfg: the configuration, before its derived fields are filled in.
        given: the fields whose value is not the default.

    Raises:
        ConfigurationError: saying which fields, and what to do.
    """
    _check_choices(cfg)
    _check_sizes(cfg)
    _check_company(cfg, given)
    _check_norms_and_caps(cfg, given)
    _check_positions(cfg, given)
    _check_hosts(cfg)


def _check_choices(cfg: HookedTransformerConfig) -> None:
    for name, choices in CHOICES.items():
        value = getattr(cfg, name)
        if value not in choices:
            raise ConfigurationError(f"{name}={value!r} is none of {', '.join(map(repr, choices))}.")
    if not cfg.attn_only and cfg.act_fn not in ACTIVATIONS:
        raise ConfigurationError(
            f"act_fn={cfg.act_fn!r} is no known activation: {', '.join(ACTIVATIONS)}.{nearest(cfg.act_fn, ACTIVATIONS)}"
        )
    if not isinstance(cfg.dtype, torch.dtype) or not cfg.dtype.is_floating_point:
        raise ConfigurationError(f"dtype={cfg.dtype!r} is no floating-point dtype of torch.")


def _check_sizes(cfg: HookedTransformerConfig) -> None:
    if cfg.n_heads == -1:
        raise ConfigurationError(
            f"d_model={cfg.d_model} is not divisible by d_head={cfg.d_head}: say how many heads with n_heads."
        )
    for name in ("d_model", "d_head", "n_heads", "n_layers", "n_ctx", "d_vocab", "n_devices"):
        if name == "d_vocab" and cfg.d_vocab == -1:
            continue  # a tokenizer may say it; the model refuses where none does
        if getattr(cfg, name) < (0 if name == "n_layers" else 1):
            raise ConfigurationError(f"{name}={getattr(cfg, name)} must be positive.")
    kv = cfg.n_key_value_heads
    if kv is not None and (kv < 1 or cfg.n_heads % kv):
        raise ConfigurationError(f"n_key_value_heads={kv} does not divide n_heads={cfg.n_heads}.")
    if cfg.rotary_dim is not None and (cfg.rotary_dim > cfg.d_head or cfg.rotary_dim % 2):
        raise ConfigurationError(f"rotary_dim={cfg.rotary_dim} must be even and at most d_head={cfg.d_head}.")
    if cfg.num_experts is not None and cfg.experts_per_token is not None and cfg.experts_per_token > cfg.num_experts:
        raise ConfigurationError(f"experts_per_token={cfg.experts_per_token} exceeds num_experts={cfg.num_experts}.")
    if "local" in (cfg.attn_types or []) and not cfg.use_local_attn:
        raise ConfigurationError("attn_types names local layers, which has no effect without use_local_attn=True.")
    if cfg.use_local_attn:
        if cfg.window_size is None or cfg.attn_types is None:
            raise ConfigurationError("use_local_attn=True needs window_size and attn_types.")
        if len(cfg.attn_types) < cfg.n_layers or set(cfg.attn_types) - {"global", "local"}:
            raise ConfigurationError(
                f'attn_types must say "global" or "local" for each of {cfg.n_layers} layers; got {cfg.attn_types}.'
            )


def _check_company(cfg: HookedTransformerConfig, given: set[str]) -> None:
    for name, others in NEEDS.items():
        if name in given and not any(getattr(cfg, other) for other in others):
            raise ConfigurationError(f"{name}={getattr(cfg, name)!r} has no effect without {' or '.join(others)}.")
    for flag, prefix in (("use_yarn_rope", "yarn_"), ("use_NTK_by_parts_rope", "NTK_")):
        idle = sorted(name for name in given if name.startswith(prefix))
        if idle and not getattr(cfg, flag):
            raise ConfigurationError(f"{', '.join(idle)} has no effect without {flag}=True.")
    if cfg.use_attn_in and cfg.use_split_qkv_input:
        raise ConfigurationError("use_attn_in and use_split_qkv_input cannot be had together: one input, or three.")
    if cfg.use_normalization_before_and_after and cfg.use_normalization_after_only:
        raise ConfigurationError("Norms stand before and after, or after only; not both.")
    if cfg.qk_norm_across_heads and cfg.ungroup_grouped_query_attention:
        raise ConfigurationError("qk_norm_across_heads normalises shared keys, which ungrouping would repeat.")
    if cfg.uses_rms_norm and cfg.normalization_type not in ("RMS", "RMSPre"):
        raise ConfigurationError(f"uses_rms_norm=True contradicts normalization_type={cfg.normalization_type!r}.")
    if not cfg.use_attn_scale and cfg.attn_scale not in (-1.0, 1.0):
        raise ConfigurationError(f"use_attn_scale=False contradicts attn_scale={cfg.attn_scale}.")
    if cfg.attn_only:
        idle = sorted(given & {"gated_mlp", "num_experts", "parallel_attn_mlp", "use_hook_mlp_in"})
        if idle:
            raise ConfigurationError(f"{', '.join(idle)} has no effect with attn_only=True.")
    if cfg.num_experts and (cfg.is_layer_norm_activation() or cfg.gated_mlp_biases):
        wrong = f"act_fn={cfg.act_fn!r}" if cfg.is_layer_norm_activation() else "gated_mlp_biases"
        raise ConfigurationError(f"{wrong} has no form with experts.")


def _check_norms_and_caps(cfg: HookedTransformerConfig, given: set[str]) -> None:
    if cfg.normalization_type is None:
        norms = {"final_rms", "use_normalization_before_and_after"}
        if not cfg.use_qk_norm and not cfg.post_embedding_ln and not cfg.is_layer_norm_activation():
            norms.add("eps")
        idle = sorted(given & norms)
        if idle:
            raise ConfigurationError(f"{', '.join(idle)} has no effect with normalization_type=None.")
    for name in ("attn_scores_soft_cap", "output_logits_soft_cap", "clip_qkv"):
        if name in given and not getattr(cfg, name) > 0:
            raise ConfigurationError(f"{name}={getattr(cfg, name)!r} must be positive; leave it out for none.")


def _check_positions(cfg: HookedTransformerConfig, given: set[str]) -> None:
    if cfg.positional_embedding_type != "rotary":
        idle = [name for name in ROTARY_ONLY if name in given]
        if idle:
            raise ConfigurationError(f'{", ".join(idle)} needs positional_embedding_type="rotary".')
    lacking = [name for name in RELATIVE if getattr(cfg, name) is None]
    if cfg.positional_embedding_type == "relative_positional_bias" and lacking:
        raise ConfigurationError(f'positional_embedding_type="relative_positional_bias" needs {", ".join(lacking)}.')
    extensions = [name for name in EXTENSIONS if getattr(cfg, name)]
    if len(extensions) > 1 or (extensions and cfg.rotary_scaling_factor != 1.0):
        both = [*extensions, *(["rotary_scaling_factor"] if cfg.rotary_scaling_factor != 1.0 else [])]
        raise ConfigurationError(f"Only one way to extend rotary positions can be used at a time; got {both}.")
    if (cfg.use_dynamic_ntk_rope or cfg.use_logn_attn) and cfg.train_seq_length is None:
        raise ConfigurationError("use_dynamic_ntk_rope and use_logn_attn need train_seq_length.")


def _check_hosts(cfg: HookedTransformerConfig) -> None:
    if cfg.load_in_4bit or cfg.quantization_method:
        raise ConfigurationError(
            "The native transformer holds plain weights (load_in_4bit and quantization_method are not for it). "
            "Boot quantized checkpoints with TransformerBridge."
        )
    if cfg.layer_norm_folding:
        raise ConfigurationError(
            'layer_norm_folding is for TransformerBridge; here normalization_type="LNPre" or "RMSPre" says it.'
        )
    if cfg.n_devices > 1 and torch.cuda.device_count() < cfg.n_devices:
        raise ConfigurationError(f"n_devices={cfg.n_devices}, but torch sees {torch.cuda.device_count()} CUDA devices.")
