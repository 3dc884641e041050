"""Models that lenses look at: `demo` on both hosts, and small random families on both, no parameter left at 0 or 1."""

import copy
from functools import cache

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from toys import randomise, toy
from transformer_lens import HookedTransformer, TransformerBridge, demo

DEMOS = ["native", "native, as trained", "bridge"]
SMALL = {
    "vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20,
    "max_position_embeddings": 24, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 4}
FAMILIES = {
    "gpt2": {"vocab_size": 31, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 24, "n_inner": 20,
             "bos_token_id": 1, "eos_token_id": 2},
    "llama": {**GROUPED, "attention_bias": True},
    "gpt_neox": {
        **SMALL,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    },
    "gemma2": {**GROUPED, "query_pre_attn_scalar": 4, "final_logit_softcapping": None},
}  # fmt: skip
TOYS = ["plain", "no_weights_in_norms", "parallel_rotary", "gated_grouped", "attn_only", "sinks"]
SMALL_MODELS = [*TOYS, *(f"{family} bridge" for family in FAMILIES), *(f"{family} native" for family in FAMILIES)]


@cache
def demo_on(host):
    """The embedded model on one of the hosts."""
    if host == "bridge":
        return TransformerBridge.boot_transformers("demo", device="cpu")
    if host == "native":
        return HookedTransformer.from_pretrained("demo", device="cpu")
    return HookedTransformer.from_pretrained_no_processing("demo", device="cpu")


@cache
def small(name):
    """A small model by its name in SMALL_MODELS."""
    if name in TOYS:
        return toy(name)
    family, host = name.split()
    config = CONFIG_MAPPING[family](**FAMILIES[family])
    hf_model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    randomise(hf_model)
    hf_model.tie_weights()
    if host == "bridge":
        return TransformerBridge.boot_transformers(hf_model=hf_model)
    return HookedTransformer.from_pretrained_no_processing(family, hf_model=hf_model, device="cpu")


def documents(seed, rows, length=24):
    """Beginnings of training texts of the embedded model."""
    long = (document.ids[:length] for document in demo.documents(seed) if len(document.ids) >= length)
    return torch.tensor([next(long) for _ in range(rows)])


DIRECTION = torch.randn(16, generator=torch.Generator().manual_seed(5))


def exact(name):
    """The model in float64, a step for finite differences, and what they are good for."""
    model = copy.deepcopy(small(name)).to(torch.float64)
    # Transformers' models compute norms and rotations in float32 whatever their dtype.
    return (model, 1e-3, 5e-3) if name.endswith("bridge") else (model, 1e-5, 1e-5)
