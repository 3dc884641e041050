"""Models whose caches are analysed: every way to write into the stream and to read it, folded and not."""

from functools import cache

import torch

from toys import KINDS, TOKENS, toy
from transformer_lens.cache.activation_cache import ActivationCache

PLACED = {
    "final_rms": {"normalization_type": "LN", "final_rms": True},
    "ln_around": {"normalization_type": "LN", "use_normalization_before_and_after": True},
    "rms_after_only": {"normalization_type": "RMS", "use_normalization_after_only": True},
    "attn_only_ln": {"attn_only": True, "d_mlp": None},
    "rms": {"normalization_type": "RMS"},
}
FOLDED = ("plain", "final_rms", "rms", "gated_grouped", "parallel_rotary", "norms_around", "attn_only_ln")
WRITING = (
    "plain", "attn_only", "no_weights_in_norms", "parallel_rotary", "gated_grouped", "norms_around", "experts",
    "shortformer", "norm_in_mlp", "sinks",
)  # fmt: skip
MODELS = [*WRITING, *PLACED, *(f"{kind} folded" for kind in FOLDED)]
NEURONS = [name for name in MODELS if name.split()[0] not in ("attn_only", "attn_only_ln", "experts")]


@cache
def model_of(name):
    kind = name.split()[0]
    model = toy(kind) if kind in KINDS else toy("plain", **PLACED[kind])
    if name.endswith("folded"):
        layer_norms = kind in ("plain", "parallel_rotary", "attn_only_ln")
        model.process_weights_(center_writing_weights=layer_norms, center_unembed=layer_norms)
    return model


@cache
def run_of(name):
    with torch.no_grad():
        return model_of(name).run_with_cache(TOKENS)


def cache_of(name):
    """A cache that tests may change."""
    cache = run_of(name)[1]
    return ActivationCache(dict(cache), cache.model)


def places(model):
    """Every stream that is read: layer, mlp_input, the name of what is there, and the norm before its reader."""
    n_layers = model.cfg.n_layers
    for layer in range(n_layers):
        yield layer, False, f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.ln1"
        if not model.cfg.attn_only:
            name = "hook_resid_pre" if model.cfg.parallel_attn_mlp else "hook_resid_mid"
            yield layer, True, f"blocks.{layer}.{name}", f"blocks.{layer}.ln2"
    yield n_layers, False, f"blocks.{n_layers - 1}.hook_resid_post", "ln_final"


def close(a, b, tolerance=2e-5):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)
