"""Models whose weights are not plain parameters: adapters, quantised layers, weights kept elsewhere."""

import copy

import peft
import pytest
import torch
from families import hf_model, tokens
from torch import nn

from transformer_lens import TransformerBridge
from transformer_lens.errors import ConfigurationError
from transformer_lens.wrapped.stored import UnreadableWeightError, weight_of

# peft asks transformers under an old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def double(activation, hook):
    return activation * 2


def plain():
    return TransformerBridge.boot_transformers(hf_model=copy.deepcopy(hf_model("llama")))


def with_adapter(**options):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, **options)
    torch.manual_seed(0)
    return peft.get_peft_model(copy.deepcopy(hf_model("llama")), config).eval()


@torch.no_grad()
def test_a_model_with_adapters_has_its_logits_hooks_and_the_weights_it_computes_with():
    model = with_adapter()
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    assert torch.equal(bridge(tokens()), model(tokens()).logits)
    assert bridge.original_model is model.get_base_model()
    merged = TransformerBridge.boot_transformers(hf_model=copy.deepcopy(model).merge_and_unload())
    for name in ("W_Q", "W_K", "W_V", "W_O", "W_out", "b_Q"):
        assert torch.allclose(getattr(bridge, name), getattr(merged, name), atol=1e-6), name
    assert not torch.allclose(bridge.W_Q, plain().W_Q, atol=1e-2)
    assert torch.equal(bridge.W_K, plain().W_K)
    for name in (
        "blocks.1.attn.hook_q",
        "blocks.1.mlp.hook_post",
        "blocks.0.attn.hook_result",
        "blocks.2.hook_q_input",
    ):
        edited, expected = (b.run_with_hooks(tokens(), fwd_hooks=[(name, double)]) for b in (bridge, merged))
        assert torch.allclose(edited, expected, atol=1e-4)
    _, cache = bridge.run_with_cache(tokens())
    assert torch.allclose(cache.stack_head_results(incl_remainder=True).sum(0), cache["resid_post", 2], atol=1e-5)


@torch.no_grad()
def test_adapters_that_are_switched_off_do_not_count():
    model = with_adapter()
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    with model.disable_adapter():
        assert torch.equal(bridge.W_Q, plain().W_Q)
        assert torch.equal(bridge(tokens()), plain()(tokens()))


def test_what_cannot_be_read_or_written_with_adapters_says_so():
    bridge = TransformerBridge.boot_transformers(hf_model=with_adapter())
    with pytest.raises(UnreadableWeightError, match=r"blocks\.0\.attn\.W_Q writes weights.*q_proj.*merge_and_unload"):
        bridge.blocks[0].attn.W_Q = torch.zeros(4, 32, 6)
    with pytest.raises(UnreadableWeightError, match=r"Compatibility mode writes weights.*q_proj"):
        bridge.enable_compatibility_mode()
    scaled = TransformerBridge.boot_transformers(hf_model=with_adapter(use_dora=True))
    with pytest.raises(UnreadableWeightError, match=r"adds no matrix to it.*Hooks work on this model"):
        _ = scaled.W_Q
    prompts = peft.get_peft_model(
        copy.deepcopy(hf_model("llama")), peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    )
    with pytest.raises(ConfigurationError, match="learned tokens before the text"):
        TransformerBridge.boot_transformers(hf_model=prompts)


class EightBitLinear(nn.Module):
    """A linear layer that keeps rounded numbers and a scale for each row, as quantisation libraries do."""

    def __init__(self, linear):
        super().__init__()
        self.scale = nn.Parameter(linear.weight.data.abs().amax(1, keepdim=True) / 127, requires_grad=False)
        self.weight = nn.Parameter((linear.weight.data / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.weight * self.scale)


class ReadableEightBitLinear(EightBitLinear):
    def dequantize(self):
        return self.weight * self.scale


def quantised(kind):
    model = copy.deepcopy(hf_model("llama"))
    for layer in model.model.layers:
        for parent, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down"))):
            for name in names:
                setattr(parent, f"{name}_proj", kind(getattr(parent, f"{name}_proj")))
    return model


@torch.no_grad()
def test_quantised_layers_are_read_where_they_say_how():
    model = quantised(ReadableEightBitLinear)
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    assert torch.equal(bridge(tokens()), model(tokens()).logits)
    assert 0 < (bridge.W_Q - plain().W_Q).abs().max() < 0.01
    _, cache = bridge.run_with_cache(tokens())
    read = torch.einsum("bpd,hdk->bphk", cache["blocks.1.ln1.hook_out"], bridge.blocks[1].attn.W_Q)
    assert torch.allclose(read, cache["q", 1], atol=1e-5)
    with pytest.raises(UnreadableWeightError, match="quantised"):
        bridge.enable_compatibility_mode()


@torch.no_grad()
def test_quantised_layers_that_do_not_say_how_can_be_hooked():
    model = quantised(EightBitLinear)
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    assert torch.equal(bridge(tokens()), model(tokens()).logits)
    assert not torch.equal(
        bridge.run_with_hooks(tokens(), fwd_hooks=[("blocks.0.hook_attn_out", double)]), bridge(tokens())
    )
    with pytest.raises(UnreadableWeightError, match=r"q_proj\.weight is kept as torch\.int8 of shape \(24, 32\)"):
        _ = bridge.W_Q


@pytest.mark.filterwarnings("ignore:torch")
@torch.no_grad()
def test_torchs_own_quantised_layers():
    model = torch.ao.quantization.quantize_dynamic(copy.deepcopy(hf_model("llama")), {nn.Linear}, dtype=torch.qint8)
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    assert torch.equal(bridge(tokens()), model(tokens()).logits)
    assert 0 < (bridge.W_Q - plain().W_Q).abs().max() < 0.02
    assert bridge.run_with_cache(tokens())[1]["q", 0].shape == (3, 13, 4, 6)


def test_a_weight_that_was_never_loaded():
    with torch.device("meta"):
        layer = nn.Linear(2, 3)
    with pytest.raises(UnreadableWeightError, match=r"here\.weight was never loaded"):
        weight_of(layer, "weight", "here")
