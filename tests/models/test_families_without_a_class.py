"""Families that transformers has no class for, or stores in a way of their own, against relatives that it has."""

import copy
import json
import re

import families
import pytest
import torch
from safetensors.torch import save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM

from transformer_lens.models import toy_checkpoints
from transformer_lens.models.hooked_transformer import HookedTransformer
from transformer_lens.models.request import Request
from transformer_lens.models.saving import NotRepresentableError
from transformer_lens.specs import UnsupportedModelError
from transformer_lens.weights.checkpoints import CheckpointError
from transformer_lens.weights.mxfp4 import VALUES

TOKENS = families.tokens(rows=2, length=9)


def write(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def load(folder, **options):
    return HookedTransformer.from_pretrained_no_processing(str(folder), device="cpu", **options)


@torch.no_grad()
def test_qwen_1_within_its_trained_length_is_a_qwen_2_with_other_names(tmp_path):
    config = Qwen2Config(
        vocab_size=61, hidden_size=32, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=32, **families.IDS,
    )  # fmt: skip
    hf = Qwen2ForCausalLM(config).eval()
    families.randomise(hf, 0)
    state = {}
    renames = {"model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f",
               "model.layers": "transformer.h",
               "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2", "self_attn.o_proj": "attn.c_proj",
               "mlp.up_proj": "mlp.w1", "mlp.gate_proj": "mlp.w2", "mlp.down_proj": "mlp.c_proj"}  # fmt: skip
    given = hf.state_dict()
    for name, value in given.items():
        if re.search(r"\.[qkv]_proj\.", name):
            continue
        for old, new in renames.items():
            name = name.replace(old, new)
        state[name] = value
    for layer in range(2):
        for leaf in ("weight", "bias"):
            parts = [given[f"model.layers.{layer}.self_attn.{x}_proj.{leaf}"] for x in "qkv"]
            state[f"transformer.h.{layer}.attn.c_attn.{leaf}"] = torch.cat(parts)
    fields = {"model_type": "qwen", "architectures": ["QWenLMHeadModel"], "vocab_size": 61, "hidden_size": 32,
              "num_hidden_layers": 2, "num_attention_heads": 4, "kv_channels": 8, "intermediate_size": 40,
              "seq_length": 32, "bf16": True, "tokenizer_type": "QWenTokenizer"}  # fmt: skip
    write(tmp_path / "qwen", fields, state)
    model = load(tmp_path / "qwen")
    torch.testing.assert_close(model(TOKENS), hf(TOKENS).logits, atol=1e-5, rtol=0)
    assert (model.cfg.use_logn_attn, model.cfg.use_dynamic_ntk_rope, model.cfg.train_seq_length) == (True, True, 32)
    with pytest.raises(NotRepresentableError, match="no model class for Qwen 1"):
        model.to_hf()
    write(tmp_path / "qwen", {**fields, "use_mystery": 3}, state)
    with pytest.raises(UnsupportedModelError, match="use_mystery=3"):
        load(tmp_path / "qwen")


@torch.no_grad()
def test_santacoder_is_a_bigcode_model_with_other_names(tmp_path):
    hf = families.hf_model("gpt_bigcode")
    state = {}
    for name, value in hf.state_dict().items():
        if ".c_attn." in name:
            state[name.replace("c_attn", "q_attn")] = value[:32].T if value.ndim == 2 else value[:32]
            state[name.replace("c_attn", "kv_attn")] = value[32:].T if value.ndim == 2 else value[32:]
        elif value.ndim == 2 and ".h." in name:
            state[name] = value.T  # Conv1D
        elif name != "lm_head.weight":
            state[name] = value
    fields = {"model_type": "gpt2", "architectures": ["GPT2LMHeadCustomModel"], "attention_head_type": "multiquery",
              **families.OLD, "activation_function": "gelu_pytorch_tanh"}  # fmt: skip
    write(tmp_path / "santacoder", fields, state)
    torch.testing.assert_close(load(tmp_path / "santacoder")(TOKENS), hf(TOKENS).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_text_part_of_a_gemma_3_that_sees_images(tmp_path):
    _, fields = families.ROWS["gemma3"]
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 8, "patch_size": 4}  # fmt: skip
    config = Gemma3Config(text_config={**families.IDS, **fields}, vision_config=vision, mm_tokens_per_image=4,
                          image_token_index=60, boi_token_index=59, eoi_token_index=58)  # fmt: skip
    hf = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    families.randomise(hf.model.language_model, 0)
    tokens = TOKENS.clamp(max=57)
    wanted = hf(tokens).logits
    hf.save_pretrained(tmp_path)
    for model in (load(tmp_path), HookedTransformer.from_pretrained_no_processing("x", hf_model=hf, device="cpu")):
        torch.testing.assert_close(model(tokens), wanted, atol=1e-5, rtol=0)
    text = model.to_hf()
    assert type(text).__name__ == "Gemma3ForCausalLM"
    torch.testing.assert_close(text(tokens).logits, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_packed_experts_of_gpt_oss(tmp_path):
    hf = copy.deepcopy(families.hf_model("gpt_oss"))
    generator = torch.Generator().manual_seed(0)
    packed = {}
    for layer, block in enumerate(hf.model.layers):
        for name in ("gate_up_proj", "down_proj"):
            weight = getattr(block.mlp.experts, name)  # [expert, in, out]
            expert, d_in, d_out = weight.shape
            groups = d_in // 8
            blocks = torch.randint(0, 256, (expert, d_out, groups, 4), generator=generator, dtype=torch.uint8)
            scales = torch.randint(123, 127, (expert, d_out, groups), generator=generator, dtype=torch.uint8)
            for e, o, g in ((0, 0, 0), (1, 2, 1)):  # by hand, for some
                for i in range(4):
                    low, high = int(blocks[e, o, g, i]) % 16, int(blocks[e, o, g, i]) // 16
                    power = 2.0 ** (int(scales[e, o, g]) - 127)
                    weight[e, 8 * g + 2 * i, o], weight[e, 8 * g + 2 * i + 1, o] = (
                        VALUES[low] * power,
                        VALUES[high] * power,
                    )
            by_hand = weight.clone()
            table = torch.tensor(VALUES)
            halves = torch.stack([table[(blocks % 16).long()], table[(blocks // 16).long()]], -1).flatten(-2)
            weight.copy_((halves * 2.0 ** (scales.double()[..., None] - 127)).float().flatten(-2).transpose(1, 2))
            for e, o, g in ((0, 0, 0), (1, 2, 1)):
                assert torch.equal(weight[e, 8 * g : 8 * g + 8, o], by_hand[e, 8 * g : 8 * g + 8, o])
            prefix = f"model.layers.{layer}.mlp.experts.{name}"
            packed |= {f"{prefix}_blocks": blocks, f"{prefix}_scales": scales}
    state = {name: value for name, value in hf.state_dict().items() if not name.endswith(("gate_up_proj", "down_proj"))}
    fields = hf.config.to_dict() | {"quantization_config": {"quant_method": "mxfp4"}}
    write(tmp_path / "packed", fields, state | packed)
    model = load(tmp_path / "packed")
    torch.testing.assert_close(model(TOKENS), hf(TOKENS).logits, atol=1e-5, rtol=0)
    assert "quantization_config" not in model.to_hf().config.to_dict()
    write(tmp_path / "packed", fields | {"quantization_config": {"quant_method": "gptq"}}, state | packed)
    with pytest.raises(UnsupportedModelError, match="only mxfp4"):
        load(tmp_path / "packed")


# --- state dicts of this library, and of minGPT -------------------------------------------------------------------

TOY = {"n_layers": 2, "d_model": 16, "n_heads": 4, "d_head": 4, "n_ctx": 12, "d_vocab": 61, "d_mlp": 20}


def build(fields, state, tmp_path, **options):
    path = tmp_path / "model_final.pth"
    torch.save(state, path)
    steps = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
    return toy_checkpoints.build(HookedTransformer, fields, path, Request(device="cpu", **options), steps)


@torch.no_grad()
def test_toy_checkpoints_under_old_and_new_names(tmp_path):
    fields = toy_checkpoints.fields_of_json({**TOY, "act_fn": "solu_ln", "attn_only": False, "normalization": "LN"})
    made = HookedTransformer({**fields, "device": "cpu", "seed": 0})
    state = made.state_dict()
    state["blocks.0.attn.mask"] = torch.ones(12, 12).bool()
    model = build(fields, state, tmp_path)
    assert torch.equal(model(TOKENS), made(TOKENS))
    old = {name.replace("ln_final", "norm").replace("ln", "norm"): value for name, value in state.items()}
    assert "norm.w" in old
    assert "blocks.0.norm1.w" in old
    assert torch.equal(build(fields, old, tmp_path)(TOKENS), made(TOKENS))
    with pytest.raises(CheckpointError, match="cannot be read as tensors only"):
        build(fields, {"x": made.blocks}, tmp_path)


@torch.no_grad()
def test_min_gpt(tmp_path):
    fields = toy_checkpoints.OTHELLO_FIELDS | TOY
    made = HookedTransformer({**fields, "device": "cpu", "seed": 0})
    for parameter in made.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape) + (parameter if parameter.ndim == 1 else 0))
    made.unembed.b_U.zero_()
    state = {"pos_emb": made.pos_embed.W_pos[None], "tok_emb.weight": made.embed.W_E, "head.weight": made.W_U.T,
             "ln_f.weight": made.ln_final.w, "ln_f.bias": made.ln_final.b}  # fmt: skip
    for layer, block in enumerate(made.blocks):
        state |= {f"blocks.{layer}.{x}": y for x, y in {
            "ln1.weight": block.ln1.w, "ln1.bias": block.ln1.b, "ln2.weight": block.ln2.w, "ln2.bias": block.ln2.b,
            "mlp.0.weight": block.mlp.W_in.T, "mlp.0.bias": block.mlp.b_in, "mlp.2.weight": block.mlp.W_out.T,
            "mlp.2.bias": block.mlp.b_out, "attn.proj.weight": block.attn.W_O.flatten(0, 1).T,
            "attn.proj.bias": block.attn.b_O, "attn.mask": torch.ones(1, 1, 12, 12),
            **{f"attn.{n}.weight": getattr(block.attn, f"W_{n[0].upper()}").transpose(1, 2).flatten(0, 1)
               for n in ("query", "key", "value")},
            **{f"attn.{n}.bias": getattr(block.attn, f"b_{n[0].upper()}").flatten() for n in ("query", "key", "value")},
        }.items()}  # fmt: skip
    state = {name: value.detach().clone() for name, value in state.items()}
    torch.testing.assert_close(build(fields, state, tmp_path)(TOKENS), made(TOKENS), atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match=r"blocks.0.odd"):
        build(fields, state | {"blocks.0.odd": torch.ones(1)}, tmp_path)
