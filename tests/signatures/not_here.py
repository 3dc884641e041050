"""Recorded names that are not here, or take other arguments, by reason. The list may only get shorter.

A whole module stands for all its names, and `Class:` before names for its members. `test_signatures` fails when an
entry has become available: take it out then.
"""

_NAMES = {
    "Steps inside attention: hooks show them; positions and masks live in native.positions and native.frame.": """
        components.abstract_attention.AbstractAttention: IGNORE alibi apply_causal_mask apply_rotary
            calculate_attention_scores calculate_qkv_matrices calculate_sin_cos_rotary calculate_z_scores
            create_alibi_bias create_alibi_multipliers create_alibi_slope k_norm mask q_norm rotary_cos
            rotary_sin rotate_every_two
        components.grouped_query_attention.GroupedQueryAttention: calculate_attention_scores calculate_qkv_matrices
            calculate_z_scores
    """,
    "A bridge has one host and no adapters, components or remote drivers; its sites are in `wrapped`.": """
        HookedRootModule.HookedRootModule.name hook_points.HookPoint.add_hook
        hook_points.HookPoint.enable_reshape model_bridge.bridge_core model_bridge.component_setup
        model_bridge.composition_scores model_bridge.exceptions model_bridge.remote_bridge
        model_bridge.sources.native model_bridge.sources.tl_legacy model_bridge.sources.transformers.source
        hook_points: HookIntrospectionMixin
        model_bridge.sources._bridge_builder: build_bridge_config_from_hf build_bridge_from_module
            configure_tokenizer detect_tokenizer_bos_eos skip_tokenizer_for_modality
        model_bridge.transformer_bridge.TransformerBridge: OV_for_attn_layers QK_for_attn_layers __init__
            attn_head_labels block_hooks block_submodules blocks_with composition_layer_indices
            diffusion_generate encoder_output forward generate generate_stream get_params hf_generate init_weights
            input_to_embed layer_types mps predict_next_sentence prepare_multimodal_inputs process_weights
            stack_params_for to_sentence_pair_tokens
    """,
    "The Learning Interpretability Tool has its own server; pages here are files.": """
        lit lit.constants lit.dataset lit.model lit.utils
    """,
}


def _names(text: str) -> set[str]:
    """Each name in full; what ends in a colon stands before the rest of its line, and of deeper lines below it."""
    names, parent = set(), ""
    for line in text.splitlines():
        if not line.startswith(" " * 12):
            parent = ""
        for word in line.split():
            if word.endswith(":"):
                parent = f"{word[:-1]}."
            else:
                names.add(parent + word)
    return names


NOT_HERE: set[str] = {name for text in _NAMES.values() for name in _names(text)}
