"""Recorded names that are not here, or take other arguments, by reason. The list may only get shorter.

A whole module stands for all its names, and `Class:` before names for its members. `test_signatures` fails when an
entry has become available: take it out then.
"""

_NAMES = {
    "Encoders, encoder-decoders and audio models have no native host yet.": """
        BertNextSentencePrediction HookedAudioEncoder HookedEncoder HookedEncoderDecoder components.bert_block
        components.bert_embed components.bert_mlm_head components.bert_nsp_head components.bert_pooler
        components.t5_attention components.t5_block components.token_typed_embed
    """,
    "Steps inside attention: hooks show them; positions and masks live in native.positions and native.frame.": """
        components.abstract_attention.AbstractAttention: IGNORE alibi apply_causal_mask apply_rotary
            calculate_attention_scores calculate_qkv_matrices calculate_sin_cos_rotary calculate_z_scores
            create_alibi_bias create_alibi_multipliers create_alibi_slope forward k_norm mask q_norm rotary_cos
            rotary_sin rotate_every_two
        components.grouped_query_attention.GroupedQueryAttention: calculate_attention_scores calculate_qkv_matrices
            calculate_z_scores
    """,
    "A family is data (specs), so there are no functions that convert configurations of one family.": """
        loading_from_pretrained: Config convert_hf_model_config convert_neel_model_config fill_missing_keys
            get_basic_config get_pretrained_model_config
        config.transformer_bridge_config.TransformerBridgeConfig.__init__
        config.transformer_bridge_config.TransformerBridgeConfig.head_dim factories.activation_function_factory
        factories.architecture_adapter_factory utilities.aliases
        utilities.heterogeneous_config utilities.quantization utilities.tl_checkpoint_conversion utilities.tracr
        utilities.hf_utils: autoconfig_with_remote_post_init_compat autotokenizer_with_special_token_compat
            enable_hf_numeric_tower get_rotary_pct_from_config make_post_init_kwarg_tolerant
    """,
    "Which words say the kind of a model is not recorded; see is_masked_lm_model and the others beside it.": """
        utilities.architectures: classify_architecture classify_model_config classify_model_name
    """,
    "Weights in HuggingFace's names are processed by the bridge itself.": """
        weight_processing.ProcessWeights: center_unembed convert_tensor_to_hf_format convert_tensor_to_tl_format
            distribute_weights_to_components extract_attention_tensors_for_folding
    """,
    "A bridge has one host and no adapters, components or remote drivers; its sites are in `wrapped`.": """
        HookedRootModule.HookedRootModule.name hook_points.HookPoint.add_hook
        hook_points.HookPoint.enable_reshape model_bridge.bridge_core model_bridge.component_setup
        model_bridge.composition_scores model_bridge.exceptions model_bridge.remote_bridge
        model_bridge.sources.native model_bridge.sources.tl_legacy model_bridge.sources.transformers.source
        utilities.attn_implementation utilities.bridge_components utilities.parameter_swap utilities.position_ids
        hook_points: HookIntrospectionMixin
        model_bridge.sources._bridge_builder: build_bridge_config_from_hf build_bridge_from_module
            configure_tokenizer detect_tokenizer_bos_eos skip_tokenizer_for_modality
        model_bridge.transformer_bridge.TransformerBridge: OV_for_attn_layers QK_for_attn_layers __init__
            attn_head_labels block_hooks block_submodules blocks_with composition_layer_indices
            diffusion_generate encoder_output forward generate generate_stream get_params hf_generate init_weights
            input_to_embed layer_types mps predict_next_sentence prepare_multimodal_inputs process_weights
            stack_params_for to_sentence_pair_tokens
    """,
    "Devices of a HuggingFace model are placed by transformers' device_map.": """
        utilities.multi_gpu: find_misplaced_modules maybe_cast_floating_params resolve_device_map
    """,
    "Results whose fields are not explained by their names; lenses, probing and patching hold such studies.": """
        tools.analysis.jacobian_lens
        tools.analysis.jacobian_lens_coordinate_patch tools.analysis.jacobian_lens_decomposition
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
