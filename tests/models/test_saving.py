"""Back to transformers: edits survive, folders can be overwritten, and what has no place is said."""

import copy

import families
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from transformer_lens import demo
from transformer_lens.models.hooked_transformer import HookedTransformer
from transformer_lens.models.saving import NotRepresentableError
from transformer_lens.weights.checkpoints import CheckpointError

TOKENS = families.tokens(rows=2, length=9)


def auto(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def loaded(row, processed=False):
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    return load(row, hf_model=copy.deepcopy(families.hf_model(row)), device="cpu")


@torch.no_grad()
@pytest.mark.parametrize("processed", [False, True])
def test_an_ablated_head_and_a_projected_out_direction_survive(tmp_path, processed):
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    model = load("demo", device="cpu")
    tokens = model.to_tokens("The Eiffel Tower is in the city of")
    before = model(tokens).log_softmax(-1)
    model.blocks[1].attn.W_O.data[2] = 0
    direction = torch.nn.functional.normalize(model.W_E[5], dim=0)
    W_out = model.blocks[2].mlp.W_out
    W_out.data -= (W_out @ direction)[:, None] * direction
    model.save_pretrained(tmp_path)
    edited = auto(tmp_path)(tokens).logits.log_softmax(-1)
    assert (edited - before).abs().max() > 0.01
    torch.testing.assert_close(edited, model(tokens).log_softmax(-1), atol=3e-5, rtol=0)
    assert AutoTokenizer.from_pretrained(tmp_path)("The Eiffel Tower")["input_ids"] == tokens[0, 1:4].tolist()


@torch.no_grad()
def test_saving_into_the_folder_that_the_weights_are_mapped_from(tmp_path):
    HookedTransformer.from_pretrained_no_processing("demo", device="cpu").save_pretrained(tmp_path)
    model = HookedTransformer.from_pretrained_no_processing(str(tmp_path), device="cpu")
    tokens = torch.arange(6)[None]
    model.blocks[0].attn.W_Q.data.zero_()
    wanted = model(tokens)
    model.save_pretrained(tmp_path)
    assert torch.equal(model(tokens), wanted)
    again = HookedTransformer.from_pretrained_no_processing(str(tmp_path), device="cpu")
    assert torch.equal(again(tokens), wanted)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@torch.no_grad()
def test_writing_to_mapped_weights_changes_neither_the_file_nor_the_tied_weight():
    file = demo.folder() / "model.safetensors"
    stored = load_file(file)["transformer.wte.weight"].clone()
    model = HookedTransformer.from_pretrained_no_processing("demo", device="cpu")
    model.W_E.data[3] = 7.0
    assert not bool((model.W_U[:, 3] == 7).any())
    assert torch.equal(load_file(file)["transformer.wte.weight"], stored)


@torch.no_grad()
def test_embeddings_that_went_separate_ways_are_untied():
    model = loaded("gpt2")
    assert model.to_hf().config.tie_word_embeddings
    model.unembed.W_U.data = model.unembed.W_U.data * 2
    back = model.to_hf()
    assert not back.config.tie_word_embeddings
    torch.testing.assert_close(back(TOKENS).logits, model(TOKENS), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("row", ["granite", "granitemoe", "gemma", "nemotron"])
def test_an_edit_leaves_the_bits_of_all_other_weights(row):
    # These scale weights on the way in, or add to them; both cannot be undone by arithmetic.
    model, hf = loaded(row), families.hf_model(row)
    before = hf.state_dict()
    model.blocks[1].attn.W_O.data[2] = 0
    model.W_E.data[7] *= 1.1
    back = model.to_hf()
    after, head = back.state_dict(), slice(2 * model.cfg.d_head, 3 * model.cfg.d_head)
    for name, value in before.items():
        changed = (after[name] != value).any(0 if "o_proj" in name else -1) if value.ndim > 1 else after[name] != value
        if name == "model.layers.1.self_attn.o_proj.weight":
            changed[head] = False
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            changed[7] = False
        assert not changed.any(), name
    torch.testing.assert_close(back(TOKENS).logits, model(TOKENS), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_copy_of_a_model_goes_back_too():
    model = copy.deepcopy(loaded("granite"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            model.to_hf().state_dict().values(), families.hf_model("granite").state_dict().values(), strict=True
        )
    )


@torch.no_grad()
def test_what_comes_back_has_memory_of_its_own():
    model = loaded("llama")
    back = model.to_hf()
    before = model(TOKENS)
    for parameter in back.parameters():
        parameter.zero_()
    assert torch.equal(model(TOKENS), before)


@torch.no_grad()
def test_biases_without_a_place_go_where_there_is_one():
    # GPT-J has no biases in attention; folding ln1 and values makes four of them.
    model = loaded("gptj", processed=True)
    assert all(bool(getattr(model.blocks[0].attn, bias).any()) for bias in ("b_Q", "b_K", "b_O"))
    wanted = model(TOKENS).log_softmax(-1)
    torch.testing.assert_close(model.to_hf()(TOKENS).logits.log_softmax(-1), wanted, atol=1e-5, rtol=0)


def test_a_bias_without_any_place_is_said():
    model = loaded("llama")
    model.blocks[1].attn.b_O.data[0] = 1.0
    with pytest.raises(NotRepresentableError, match=r"no place for blocks.1.attn.b_O.*from_pretrained_no_processing"):
        model.to_hf()


def test_two_norms_that_are_one_in_the_architecture():
    model = loaded("gptj")
    model.blocks[0].ln2.w.data = model.blocks[0].ln2.w.data * 2
    with pytest.raises(CheckpointError, match=r"blocks.0.ln1.w and blocks.0.ln2.w differ, and GPT-J has one tensor"):
        model.to_hf()


def test_computed_positions_that_were_edited():
    model = loaded("xglm")
    model.W_pos.data[3, 0] += 0.5
    with pytest.raises(CheckpointError, match="W_pos was edited, and XGLM has no tensor for it"):
        model.to_hf()


def test_a_model_from_a_configuration_has_no_way_back():
    model = HookedTransformer({"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20, "device": "cpu"})
    with pytest.raises(NotRepresentableError, match="made from a configuration"):
        model.to_hf()


@torch.no_grad()
def test_a_shorter_context_and_fewer_layers_come_back():
    hf = families.hf_model("gpt_neo")
    model = HookedTransformer.from_pretrained_no_processing("x", hf_model=hf, device="cpu", n_ctx=16, first_n_layers=2)
    back = model.to_hf()
    assert (back.config.max_position_embeddings, back.config.num_layers) == (16, 2)
    assert back.config.attention_layers == ["global", "local"]
    torch.testing.assert_close(back(TOKENS).logits, model(TOKENS), atol=1e-5, rtol=0)
