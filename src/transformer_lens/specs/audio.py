"""Encoders of sound: HuBERT and wav2vec 2.0. Only their transformer layers; convolutions stay transformers' own."""

from __future__ import annotations

from transformer_lens.specs.axes import norm, plain_mlp, separate_attention
from transformer_lens.specs.rules import activation, heads
from transformer_lens.specs.spec import Spec

_L = "encoder.layers.{layer}"
_BLOCK = "blocks.{layer}."

# What the convolutions before the layers read, which transformers builds from the same configuration.
_FRONT = frozenset({
    "conv_bias", "conv_dim", "conv_kernel", "conv_pos_batch_norm", "conv_stride", "feat_extract_activation",
    "feat_extract_norm", "feat_proj_layer_norm", "num_conv_pos_embedding_groups", "num_conv_pos_embeddings",
    "num_feat_extract_layers",
})  # fmt: skip
# Training, and heads behind the layers.
_BESIDE = frozenset({
    "apply_spec_augment", "feat_proj_dropout", "feat_quantizer_dropout", "final_dropout", "feat_extract_dropout",
    "mask_time_prob", "mask_time_length", "mask_time_min_masks", "mask_feature_prob", "mask_feature_length",
    "mask_feature_min_masks", "mask_channel_length", "mask_channel_min_space", "mask_channel_other",
    "mask_channel_prob", "mask_channel_selection", "mask_time_min_space", "mask_time_other", "mask_time_selection",
    "ctc_loss_reduction", "ctc_zero_infinity", "use_weighted_layer_sum", "classifier_proj_size",
    "num_codevectors_per_group", "num_codevector_groups", "contrastive_logits_temperature", "num_negatives",
    "codevector_dim", "proj_codevector_dim", "diversity_loss_weight", "tdnn_dim", "tdnn_kernel", "tdnn_dilation",
    "xvector_output_dim", "output_hidden_size", "adapter_kernel_size", "adapter_stride", "num_adapter_layers",
    "vocab_size", "layerdrop", "freeze_feat_extract_train", "no_mask_channel_overlap", "no_mask_time_overlap",
})  # fmt: skip

AUDIO = Spec(
    name="HuBERT and wav2vec 2.0",
    holder="HookedAudioEncoder",
    post_norm=True,
    model_types=("hubert", "wav2vec2"),
    prefix="",
    other_prefixes=("hubert.", "wav2vec2."),
    same={
        "d_model": "hidden_size",
        "n_layers": "num_hidden_layers",
        "d_mlp": "intermediate_size",
        "eps": "layer_norm_eps",
    },
    # NOTE: sound has no vocabulary, and no limit of frames; earlier versions said 8192.
    fixed={"normalization_type": "LN", "attention_dir": "bidirectional", "n_ctx": 8192, "d_vocab": -1},
    rules=(heads("num_attention_heads", ""), activation("hidden_act")),
    harmless=_FRONT | _BESIDE,
    refuses={
        "do_stable_layer_norm": ((False,), "norms before attention and MLP, as in hubert-large and xlsr"),
        "add_adapter": ((False,), "convolutions behind the layers"),
        "adapter_attn_dim": ((None,), "adapters inside the layers"),
    },
    ignored=(
        r"^((hubert|wav2vec2)\.)?(feature_extractor|feature_projection|encoder\.pos_conv_embed|encoder\.layer_norm)\.",
        r"masked_spec_embed$",
        r"^(lm_head|quantizer|project_q|project_hid|projector|classifier|layer_weights|tdnn|objective|"
        r"feature_extractor)\b",
    ),
    weights=(
        *separate_attention(f"{_L}.attention", True, names="q_proj k_proj v_proj out_proj"),
        *norm(f"{_L}.layer_norm", f"{_BLOCK}ln1", bias=True),
        *plain_mlp(f"{_L}.feed_forward.intermediate_dense", f"{_L}.feed_forward.output_dense"),
        *norm(f"{_L}.final_layer_norm", f"{_BLOCK}ln2", bias=True),
    ),
    notes="held by HookedAudioEncoder; the layers only, over transformers' own convolutions",
)
