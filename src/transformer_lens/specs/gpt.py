"""GPT-2 and its relatives with learned positions."""

from typing import Any

from transformer_lens.specs.axes import VECTOR, embeddings, norm, one
from transformer_lens.specs.reading import HFConfig
from transformer_lens.specs.rules import activation, four_times, heads_of_width
from transformer_lens.specs.spec import Part, Spec, Weight

_LAYER = "transformer.h.{layer}"
_ATTN = "blocks.{layer}.attn."


def _fused_conv(hf: str) -> tuple[Weight, Weight]:
    # Conv1D: (in, out), with q, k and v one after another in the output.
    names = ("Q", "K", "V")
    return (
        Weight(
            f"{hf}.weight",
            tuple(Part(f"{_ATTN}W_{n}", "1 head d_head d_model -> head d_model d_head") for n in names),
            first="d_model (three head d_head) -> three head d_head d_model",
        ),
        Weight(
            f"{hf}.bias",
            tuple(Part(f"{_ATTN}b_{n}", "1 head d_head -> head d_head") for n in names),
            first="(three head d_head) -> three head d_head",
        ),
    )


def _scores(config: HFConfig) -> dict[str, Any]:
    return {"use_attn_scale": bool(config["scale_attn_weights"])}


GPT2 = Spec(
    name="GPT-2",
    model_types=("gpt2",),
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    same={
        "d_model": "n_embd", "n_layers": "n_layer", "n_ctx": "n_positions", "d_vocab": "vocab_size",
        "eps": "layer_norm_epsilon", "scale_attn_by_inverse_layer_idx": "scale_attn_by_inverse_layer_idx",
    },  # fmt: skip
    fixed={"normalization_type": "LN", "positional_embedding_type": "standard"},
    rules=(heads_of_width("n_embd", "n_head"), four_times("n_inner", "n_embd"), activation("activation_function"),
           _scores),
    harmless=frozenset({"reorder_and_upcast_attn", "n_ctx"}),
    refuses={"add_cross_attention": ((False, None), "cross-attention")},
    ignored=(r"\.attn\.(masked_)?bias$",),
    weights=(
        *embeddings("transformer.wte.weight"),
        one("transformer.wpe.weight", "pos_embed.W_pos", "pos d_model -> pos d_model"),
        *norm(f"{_LAYER}.ln_1", "blocks.{layer}.ln1", bias=True),
        *_fused_conv(f"{_LAYER}.attn.c_attn"),
        one(f"{_LAYER}.attn.c_proj.weight", f"{_ATTN}W_O", "(head d_head) d_model -> head d_head d_model"),
        one(f"{_LAYER}.attn.c_proj.bias", f"{_ATTN}b_O", VECTOR),
        *norm(f"{_LAYER}.ln_2", "blocks.{layer}.ln2", bias=True),
        one(f"{_LAYER}.mlp.c_fc.weight", "blocks.{layer}.mlp.W_in", "d_model d_mlp -> d_model d_mlp"),
        one(f"{_LAYER}.mlp.c_fc.bias", "blocks.{layer}.mlp.b_in", "d_mlp -> d_mlp"),
        one(f"{_LAYER}.mlp.c_proj.weight", "blocks.{layer}.mlp.W_out", "d_mlp d_model -> d_mlp d_model"),
        one(f"{_LAYER}.mlp.c_proj.bias", "blocks.{layer}.mlp.b_out", VECTOR),
        *norm("transformer.ln_f", "ln_final", bias=True),
    ),
)
