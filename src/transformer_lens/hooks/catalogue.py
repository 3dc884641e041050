"""The table of hook points: name, the bridge's name for the same place, axes, meaning, and what switches it on.

`{l}` is a layer, `{e}` an expert; a HookedEncoderDecoder has `encoder` and `decoder` where this says `blocks`.
Documentation, short names, both spellings and the position axis all come from here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class HookInfo:
    """One kind of hook point.

    Attributes:
        name: the HookedTransformer name.
        axes: the axes of its activation, by their usual names, separated by spaces.
        meaning: what the activation is.
        bridge: the TransformerBridge name of the same place.
        flag: the configuration flag that decides whether *caching everything* stores it. Naming it always works.
        when: a name ending that must exist in the same block for `bridge` to apply (families differ).
        unless: a name ending that must not exist in the same block for `bridge` to apply.
    """

    name: str
    axes: str
    meaning: str
    bridge: str | None = None
    flag: str | None = None
    when: str | None = None
    unless: str | None = None


_D = "batch pos d_model"
_HEADS = "batch pos head d_head"
_KV = "batch pos kv_head d_head"
_SCORES = "batch head query key"
_MLP = "batch pos d_mlp"
_ENCODER = "hook_normalized_resid_post"  # blocks of BERT have it
_TYPES = "embed.hook_token_type_embed"


def _norm(name: str, what: str, axes: str = _D) -> tuple[HookInfo, HookInfo]:
    ones = " ".join([*axes.split()[:-1], "1"])
    return (
        HookInfo(f"{name}.hook_scale", ones, f"what {what} divides by"),
        HookInfo(f"{name}.hook_normalized", axes, f"{what} after division, before weight and bias"),
    )


CATALOGUE: tuple[HookInfo, ...] = (
    HookInfo("hook_tokens", "batch pos", "token ids", "embed.hook_in", "use_hook_tokens"),
    HookInfo("hook_embed", _D, "token embeddings", "embed.hook_out", unless="embed_ln.hook_out"),
    HookInfo("hook_embed", _D, "token embeddings after their norm", "embed_ln.hook_out", when="embed_ln.hook_out"),
    HookInfo("embed.ln.hook_scale", "batch pos 1", "what the norm after the embedding divides by",
             "embed_ln.hook_scale"),
    HookInfo("embed.ln.hook_normalized", _D, "the norm after the embedding after division, before weight and bias",
             "embed_ln.hook_normalized"),
    HookInfo("hook_pos_embed", _D, "position embeddings", "pos_embed.hook_out"),
    *(HookInfo(f"rotary_emb.hook_{x}", "batch pos d_rotary", f"{x} of the angles by which queries and keys are rotated",
               f"rotary_emb.hook_{x}") for x in ("cos", "sin")),
    HookInfo("blocks.{l}.hook_resid_pre", _D, "residual stream entering the block", "blocks.{l}.hook_in"),
    HookInfo("blocks.{l}.hook_attn_in", "batch pos head d_model", "attention input of each head, before ln1",
             "blocks.{l}.attn.hook_attn_in", "use_attn_in"),
    *(HookInfo(f"blocks.{{l}}.hook_{x}_input", f"batch pos {head} d_model", f"{what} input of each head, before ln1",
               f"blocks.{{l}}.attn.hook_{x}_input", "use_split_qkv_input")
      for x, what, head in (("q", "query", "head"), ("k", "key", "kv_head"), ("v", "value", "kv_head"))),
    *_norm("blocks.{l}.ln1", "ln1"),
    HookInfo("blocks.{l}.attn.hook_q", _HEADS, "queries", "blocks.{l}.attn.q.hook_out"),
    HookInfo("blocks.{l}.attn.hook_k", _KV, "keys", "blocks.{l}.attn.k.hook_out"),
    HookInfo("blocks.{l}.attn.hook_v", _KV, "values", "blocks.{l}.attn.v.hook_out"),
    *_norm("blocks.{l}.attn.q_norm", "the query norm", "batch_pos_head d_head"),
    *_norm("blocks.{l}.attn.k_norm", "the key norm", "batch_pos_head d_head"),
    HookInfo("blocks.{l}.attn.hook_rot_q", _HEADS, "queries after rotation"),
    HookInfo("blocks.{l}.attn.hook_rot_k", _KV, "keys after rotation"),
    HookInfo("blocks.{l}.attn.hook_attn_scores", _SCORES, "attention scores, masked, before the softmax"),
    HookInfo("blocks.{l}.attn.hook_pattern", _SCORES, "attention probabilities"),
    HookInfo("blocks.{l}.attn.hook_z", _HEADS, "values averaged by the pattern", "blocks.{l}.attn.o.hook_in"),
    HookInfo("blocks.{l}.attn.hook_result", "batch pos head d_model", "output of each head, without b_O",
             "blocks.{l}.attn.hook_result", "use_attn_result"),
    *_norm("blocks.{l}.ln1_post", "the norm after attention"),
    HookInfo("blocks.{l}.hook_attn_out", _D, "attention output, as added to the stream",
             "blocks.{l}.attn.hook_out", unless="ln1_post.hook_scale"),
    HookInfo("blocks.{l}.hook_attn_out", _D, "attention output after its norm, as added to the stream",
             "blocks.{l}.ln1_post.hook_out", when="ln1_post.hook_scale"),
    HookInfo("blocks.{l}.hook_resid_mid", _D, "residual stream after attention (both the MLP and the skip see an edit)",
             "blocks.{l}.ln2.hook_in", unless=_ENCODER),
    HookInfo("blocks.{l}.hook_mlp_in", _D, "the MLP branch before ln2 (the skip does not see an edit)",
             "blocks.{l}.hook_mlp_in", "use_hook_mlp_in"),
    *_norm("blocks.{l}.ln2", "ln2"),
    HookInfo("blocks.{l}.mlp.hook_pre", _MLP, "MLP before the activation function",
             "blocks.{l}.mlp.in.hook_out", unless="mlp.hook_pre_linear"),
    HookInfo("blocks.{l}.mlp.hook_pre", _MLP, "the gate of the MLP before the activation function",
             "blocks.{l}.mlp.gate.hook_out", when="mlp.hook_pre_linear"),
    HookInfo("blocks.{l}.mlp.hook_pre_linear", _MLP, "what the gate multiplies", "blocks.{l}.mlp.in.hook_out"),
    HookInfo("blocks.{l}.mlp.hook_mid", _MLP, "MLP after the activation function, before the norm in the MLP"),
    *_norm("blocks.{l}.mlp.ln", "the norm in the MLP", _MLP),
    HookInfo("blocks.{l}.mlp.hook_post", _MLP, "MLP neurons, as multiplied by W_out", "blocks.{l}.mlp.out.hook_in"),
    HookInfo("blocks.{l}.mlp.hook_expert_weights", "batch_pos expert", "probability of each expert",
             "blocks.{l}.mlp.gate.hook_out"),
    HookInfo("blocks.{l}.mlp.hook_expert_indices", "batch_pos chosen", "the experts chosen"),
    *(HookInfo(f"blocks.{{l}}.mlp.experts.{{e}}.hook_{x}", "routed d_mlp", f"the expert's {what}, of its tokens")
      for x, what in (("gate", "gate before the activation function"), ("pre", "linear branch"), ("post", "neurons"))),
    HookInfo("blocks.{l}.mlp.experts.{e}.hook_out", "routed d_model", "the expert's output, before it is weighted"),
    *(HookInfo(f"blocks.{{l}}.mlp.shared.hook_{x}", "batch_pos d_shared", f"the shared expert's {what}")
      for x, what in (("gate", "gate before the activation function"), ("pre", "linear branch"), ("post", "neurons"))),
    *_norm("blocks.{l}.ln2_post", "the norm after the MLP"),
    HookInfo("blocks.{l}.hook_mlp_out", _D, "MLP output, as added to the stream",
             "blocks.{l}.mlp.hook_out", unless="ln2_post.hook_scale"),
    HookInfo("blocks.{l}.hook_mlp_out", _D, "MLP output after its norm, as added to the stream",
             "blocks.{l}.ln2_post.hook_out", when="ln2_post.hook_scale"),
    HookInfo("blocks.{l}.hook_resid_post", _D, "residual stream leaving the block", "blocks.{l}.hook_out",
             unless=_ENCODER),
    HookInfo("blocks.{l}.attn.rel_pos_hook", "one head query key",
             "what relative positions add to the scores of all layers (held by the first)"),
    HookInfo("blocks.{l}.hook_cross_attn_in", "batch pos head d_model",
             "query input of each head of attention to the encoder, before ln2", flag="use_attn_in"),
    *(HookInfo(f"blocks.{{l}}.cross_attn.hook_{x}", axes, f"{what} of attention to the encoder",
               bridge and f"blocks.{{l}}.cross_attn.{bridge}", flag) for x, axes, what, bridge, flag in (
        ("q", _HEADS, "queries", "q.hook_out", None),
        ("k", "batch encoder_pos head d_head", "keys", "k.hook_out", None),
        ("v", "batch encoder_pos head d_head", "values", "v.hook_out", None),
        ("attn_scores", _SCORES, "scores, masked, before the softmax,", None, None),
        ("pattern", _SCORES, "probabilities", None, None),
        ("z", _HEADS, "averaged values", "o.hook_in", None),
        ("result", "batch pos head d_model", "output of each head", "hook_result", "use_attn_result"),
    )),
    HookInfo("blocks.{l}.hook_cross_attn_out", _D, "output of attention to the encoder, as added to the stream",
             "blocks.{l}.cross_attn.hook_out"),
    HookInfo("blocks.{l}.hook_resid_mid_cross", _D,
             "residual stream after attention to the encoder (both the MLP and the skip see an edit)",
             "blocks.{l}.ln3.hook_in"),
    *_norm("blocks.{l}.ln3", "ln3, before the MLP of a decoder's layer,"),
    *_norm("encoder_final_ln", "the final norm of the encoder"),
    *_norm("decoder_final_ln", "the final norm of the decoder"),
    *_norm("ln_final", "the final norm"),
    HookInfo("unembed.hook_in", _D, "what is unembedded"),
    HookInfo("unembed.hook_out", "batch pos d_vocab", "logits", "hook_unembed"),
    # BERT, whose stream is normalised after each sum.
    HookInfo("embed.hook_embed", _D, "BERT: token embeddings", "embed.hook_out", when=_TYPES),
    HookInfo("embed.hook_pos_embed", _D, "BERT: position embeddings", "pos_embed.hook_out", when=_TYPES),
    HookInfo(_TYPES, _D, "BERT: embeddings of token types"),
    HookInfo("hook_full_embed", _D, "BERT: the sum of all three after its norm", "embed_ln.hook_out", when=_TYPES),
    HookInfo("blocks.{l}.hook_resid_mid", _D, "BERT: the sum with the attention output, before ln1",
             "blocks.{l}.ln1.hook_in", when=_ENCODER),
    HookInfo("blocks.{l}.hook_resid_post", _D, "BERT: the sum with the MLP output, before ln2",
             "blocks.{l}.ln2.hook_in", when=_ENCODER),
    HookInfo("blocks.{l}.hook_normalized_resid_post", _D, "BERT: the stream leaving the block, after ln2",
             "blocks.{l}.hook_out", when=_ENCODER),
    *_norm("mlm_head.ln", "BERT: the norm before the unembedding"),
    HookInfo("pooler.hook_pooler_out", "batch d_model", "BERT: what stands for the whole text"),
    HookInfo("nsp_head.hook_nsp_out", "batch 2", "BERT: logits of whether the second text follows the first"),
)  # fmt: skip
