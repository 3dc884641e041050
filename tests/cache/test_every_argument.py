"""Each argument of the cache's analyses changes what comes back; none is accepted and ignored."""

import inspect

import pytest
import torch

from transformer_lens import ActivationCache, HookedTransformer

TOKENS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
ONTO = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
# Method: what it is called with, and another value for each of its further arguments.
CALLS = {
    "accumulated_resid": (
        {},
        {"layer": 1, "incl_mid": True, "apply_ln": True, "pos_slice": -1, "mlp_input": True, "return_labels": True},
    ),
    "decompose_resid": (
        {"layer": 1},
        {
            **{"layer": 2, "mlp_input": True, "mode": "attn", "apply_ln": True, "pos_slice": (1, 3)},
            **{"incl_embeds": False, "return_labels": True},
        },
    ),
    "stack_head_results": (
        {},
        {"layer": 1, "return_labels": True, "incl_remainder": True, "pos_slice": 0, "apply_ln": True},
    ),
    "stack_activation": ({"activation_name": "q"}, {"activation_name": "k", "layer": 1, "sublayer_type": "attn"}),
    "get_neuron_results": (
        {"layer": 0},
        {"layer": 1, "neuron_slice": (0, 5), "pos_slice": [0, 2], "project_output_onto": ONTO},
    ),
    "stack_neuron_results": (
        {"layer": 1},
        {
            **{"layer": 2, "pos_slice": -1, "neuron_slice": [1, 2], "return_labels": True, "incl_remainder": True},
            **{"apply_ln": True, "project_output_onto": ONTO, "mlp_input": True},
        },
    ),
    "get_full_resid_decomposition": (
        {"layer": 1},
        {
            **{"layer": 2, "mlp_input": True, "expand_neurons": False, "apply_ln": True, "pos_slice": (0, 2)},
            **{"return_labels": True, "project_output_onto": ONTO},
        },
    ),
    "apply_ln_to_stack": (
        {"residual_stack": torch.randn(3, 2, 4, 16, generator=torch.Generator().manual_seed(2))},
        {
            **{"residual_stack": torch.ones(1, 2, 4, 16), "layer": 1, "mlp_input": True, "recompute_ln": True},
            **{"batch_slice": [1], "pos_slice": -1, "has_batch_dim": False},
        },
    ),
    "logit_attrs": (
        {"residual_stack": torch.randn(3, 2, 4, 16, generator=torch.Generator().manual_seed(2)), "tokens": 3},
        {
            **{"residual_stack": torch.ones(1, 2, 4, 16), "tokens": 4, "incorrect_tokens": 5, "batch_slice": [1]},
            **{"pos_slice": -1, "has_batch_dim": False},
        },
    ),
    "logit_lens": (
        {"return_type": "logits"},
        {
            **{
                "layers": [1],
                "incl_mid": True,
                "positions": 0,
                "batch_slice": [1],
                "lens": lambda x, layer: 2 * x + layer,
            },
            **{
                "apply_ln": False,
                "vocab": [1, 2],
                "targets": [3],
                "return_type": "probs",
                "top_k": 2,
                "enable_grad": True,
            },
        },
    ),
}
# What goes together: some arguments need another one, or describe the stack that is given with them.
TOGETHER = {
    ("stack_activation", "sublayer_type"): {"activation_name": "q"},
    ("accumulated_resid", "mlp_input"): {"layer": 1},
    ("stack_neuron_results", "mlp_input"): {"incl_remainder": True},
    ("apply_ln_to_stack", "mlp_input"): {"layer": 1},
    ("apply_ln_to_stack", "pos_slice"): {"residual_stack": torch.ones(1, 2, 16)},
    ("apply_ln_to_stack", "has_batch_dim"): {"residual_stack": torch.ones(1, 4, 16), "batch_slice": 0},
    ("logit_attrs", "pos_slice"): {"residual_stack": torch.ones(1, 2, 16)},
    ("logit_attrs", "has_batch_dim"): {"residual_stack": torch.ones(1, 4, 16), "batch_slice": 0},
}
# Without these, the stack that they describe is one of another shape.
DESCRIBES = {
    (method, name) for method in ("apply_ln_to_stack", "logit_attrs") for name in ("pos_slice", "has_batch_dim")
}
# They change how much is held at once, whether gradients flow through a cache that has them, or repeat what is known.
SAME_ANSWER = {("logit_lens", "chunk_size"), ("logit_lens", "enable_grad"), ("stack_activation", "sublayer_type")}


@pytest.fixture(scope="module")
def cache():
    model = HookedTransformer({
        **{"n_layers": 3, "d_model": 16, "d_head": 8, "n_ctx": 8, "d_vocab": 12, "act_fn": "relu"},
        **{"seed": 0, "initializer_range": 0.5},
    })  # fmt: skip
    return model.run_with_cache(TOKENS)[1]


def numbers(result):
    """Everything in a result, flat, so that two can be compared."""
    if isinstance(result, torch.Tensor):
        return [result.detach().flatten(), torch.tensor([*result.shape, result.requires_grad])]
    if isinstance(result, tuple):
        return [part for item in result for part in numbers(item)]
    if isinstance(result, list):
        return [torch.tensor([len(result)])]
    readout = result.readout
    parts = (readout.values, readout.entropy, readout.top_ids, readout.target_ranks)
    return [part for item in parts if item is not None for part in numbers(item)]


def alike(one, other):
    pairs = (numbers(one), numbers(other))
    return len(pairs[0]) == len(pairs[1]) and all(
        a.shape == b.shape and torch.allclose(a.float(), b.float()) for a, b in zip(*pairs, strict=True)
    )


@pytest.mark.parametrize("method", CALLS)
def test_every_argument_is_tried(method):
    base, others = CALLS[method]
    known = set(inspect.signature(getattr(ActivationCache, method)).parameters) - {"self"}
    silent = {argument for name, argument in SAME_ANSWER if name == method}
    assert known == set(base) | set(others) | silent


@pytest.mark.parametrize(
    ("method", "argument"), [(method, name) for method, (_, others) in CALLS.items() for name in others]
)
def test_it_acts(cache, method, argument):
    base, others = CALLS[method]
    base = base | TOGETHER.get((method, argument), {})
    changed = getattr(cache, method)(**base | {argument: others[argument]})
    if (method, argument) in DESCRIBES:
        assert changed.shape[0] == 1
    elif (method, argument) not in SAME_ANSWER:
        assert not alike(getattr(cache, method)(**base), changed)
