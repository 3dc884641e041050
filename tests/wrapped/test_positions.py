"""Positions counted from a mask: who takes them.

4.3 answers the same but for three: OPT and BioGPT take them too (and BioGPT needs them: what 4.3 leaves to it is wrong
under left padding), and MPNet does not, as its positions begin after the padding id.
"""

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BioGptConfig,
    BioGptForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MPNetConfig,
    MPNetForMaskedLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from transformer_lens import TransformerBridge
from transformer_lens.wrapped.positions import accepts_mask_derived_position_ids

SMALL = {
    "vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 20,
}  # fmt: skip
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL), True),
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2), True),
    "bert": (BertForMaskedLM, BertConfig(**SMALL), True),
    "t5": (T5ForConditionalGeneration, T5Config(vocab_size=20, d_model=8, d_ff=8, d_kv=4, num_layers=1), True),
    "opt": (OPTForCausalLM, OPTConfig(**SMALL, ffn_dim=8, word_embed_proj_dim=8), True),
    "biogpt": (BioGptForCausalLM, BioGptConfig(**SMALL), True),
    "roberta": (RobertaForMaskedLM, RobertaConfig(**SMALL, pad_token_id=1), False),
    "mpnet": (MPNetForMaskedLM, MPNetConfig(**SMALL, pad_token_id=1), False),
}


@pytest.mark.parametrize("name", MODELS)
def test_which_models_take_them(name):
    kind, config, takes = MODELS[name]
    with torch.device("meta"):
        assert accepts_mask_derived_position_ids(kind(config)) is takes


def test_a_forward_must_take_positions():
    class Takes(nn.Module):
        def forward(self, input_ids, position_ids=None): ...

    class TakesAny(nn.Module):
        def forward(self, input_ids, **kwargs): ...

    class TakesNone(nn.Module):
        def forward(self, input_ids): ...

    class FindsThem(Takes):
        def get_rope_index(self): ...

    within = Takes()
    within.model = FindsThem()
    made = [Takes(), TakesAny(), TakesNone(), FindsThem(), within]
    assert [accepts_mask_derived_position_ids(model) for model in made] == [True, True, False, False, False]


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "opt", "biogpt", "roberta", "mpnet"])
def test_left_padding_changes_nothing_on_a_bridge(name):
    torch.manual_seed(0)
    kind, config, _ = MODELS[name]
    bridge = TransformerBridge.boot_transformers(hf_model=kind(config).eval())
    alone = bridge(torch.tensor([[5, 6, 7, 8]]))
    padded = bridge(torch.tensor([[1, 1, 5, 6, 7, 8]]), attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1]]))
    torch.testing.assert_close(padded[:, 2:], alone, rtol=0, atol=1e-6)
