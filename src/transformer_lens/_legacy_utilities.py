"""The old `utilities` modules, as a table: where each of their names lives now. `_legacy` serves it."""

_PACKAGE = "transformer_lens"
_PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "activation_functions": {
        "native.activations": (
            *("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "solu", "XIELU", "xielu", "relu2"),
            *("softcap_enabled", "apply_softcap"),
        )
    },
    "addmm": {"native.linear": ("vanilla_addmm", "batch_addmm")},
    "aliases": {"hooks.aliases": ("resolve_alias", "collect_aliases_recursive")},
    "architectures": {
        "models.architectures": (
            *("classify_architecture", "classify_model_config", "classify_model_name"),
            *("get_architectures_for_config", "is_masked_lm_model", "is_encoder_decoder_model"),
            *("is_multimodal_model", "is_audio_model"),
        )
    },
    "attention": {"native.linear": ("simple_attn_linear", "complex_attn_linear", "clamp_qkv")},
    "attn_implementation": {"wrapped.eager": ("force_eager_attention",)},
    "attribute_utils": {"nested": ("get_nested_attr", "set_nested_attr")},
    "bridge_components": {
        "wrapped.components": (
            *("collect_all_submodules_of_component", "collect_components_of_block_bridge"),
            *("collect_all_components", "apply_fn_to_all_components"),
        )
    },
    "cache": {"native.key_value_cache": ("get_pos_offset",)},
    "components_utils": {"hooks": ("get_act_name",)},
    "defaults_utils": {
        "text.defaults": ("USE_DEFAULT_VALUE", "override_or_use_default_value", "LocallyOverridenDefaults")
    },
    "devices": {
        "config.devices": ("warn_if_mps", "ModelWithCfg", "move_to_and_update_config"),
        "config.devices:default_device": ("get_device",),
    },
    "exploratory_utils": {"evals.answers:show_answer": ("test_prompt",)},
    "gpu_utils": {"config.devices": ("print_gpu_mem",)},
    "heterogeneous_config": {
        "specs.per_layer": (
            *("per_layer_attr_names", "per_layer_values", "majority_value", "safe_config_get"),
            *("HetSafeConfigView", "het_safe_view"),
        )
    },
    "hf_utils": {
        "models.hub_files": (
            *("get_hf_token", "call_hf_with_retry", "select_compatible_kwargs", "download_file_from_hf"),
            *("clear_huggingface_cache", "enable_hf_retry"),
        ),
        "models.lenient_loading": (
            *("get_rotary_pct_from_config", "make_post_init_kwarg_tolerant", "enable_hf_numeric_tower"),
            *("autoconfig_with_remote_post_init_compat", "autotokenizer_with_special_token_compat"),
        ),
        "text.packing": ("keep_single_column", "get_dataset"),
    },
    "initialization_utils": {
        "native.fans": (
            *("calc_fan_in_and_fan_out", "init_xavier_uniform_", "init_xavier_normal_"),
            *("init_kaiming_uniform_", "init_kaiming_normal_"),
        )
    },
    "library_utils": {"extras": ("is_library_available",)},
    "lm_utils": {"models.loss": ("lm_cross_entropy_loss", "lm_accuracy")},
    "logits_utils": {"generation.next_token": ("sample_logits", "logits_to_df")},
    "matrix": {
        "weights.composition": ("composition_scores",),
        "weights.factored_matrix": ("get_matrix_corner",),
    },
    "multi_gpu": {
        "config.cuda_memory": (
            *("AvailableDeviceMemory", "calculate_available_device_cuda_memory"),
            *("determine_available_memory_for_available_devices", "sort_devices_based_on_available_memory"),
            *("get_best_available_cuda_device", "get_best_available_device", "get_device_for_block_index"),
        ),
        "config.placement": (
            *("is_mixed_offload_gpu", "count_unique_devices", "find_embedding_device"),
            *("cast_floating_params_to_dtype", "maybe_cast_floating_params", "find_misplaced_modules"),
            "resolve_device_map",
        ),
    },
    "parameter_swap": {"weights.swapping": ("temporarily_swap_parameter",)},
    "position_ids": {"wrapped.positions": ("accepts_mask_derived_position_ids",)},
    "quantization": {
        "config.quantization": ("quantization_method",),
        "wrapped.quantized": ("unreadable_weight_reason", "describe_quantization", "require_readable_weight"),
    },
    "slice": {"hooks": ("Slice", "SliceInput"), "hooks.slicing": ("to_python_int",)},
    "statistics": {
        "patching.statistics": (
            *("derive_generator", "standard_error", "bootstrap_ci", "sign_flip_permutation_pvalue"),
            *("SuccessRateInterval", "success_rate_ci"),
        )
    },
    "tensors": {
        "tensors": (
            *("to_numpy", "get_corner", "remove_batch_dim", "transpose", "is_square", "is_lower_triangular"),
            *("check_structure", "get_offset_position_ids", "get_cumsum_along_dim", "repeat_along_head_dimension"),
        ),
        "nested": ("filter_dict_by_prefix",),
    },
    "tl_checkpoint_conversion": {"weights.linear_names": ("convert_tl_checkpoint",)},
    "tokenize_utils": {
        "text.packing": ("tokenize_and_concatenate",),
        "text.bos": (
            *("get_tokenizer_with_bos", "get_input_with_manually_prepended_bos", "get_tokens_with_bos_removed"),
            "get_attention_mask",
        ),
    },
    "tracr": {
        "models.tracr": (
            *("infer_tracr_output_label", "make_tracr_categorical_unembed"),
            *("make_tracr_transformer_bridge_config", "make_tracr_transformer_bridge_state_dict"),
        )
    },
    "typed_module_list": {"nested": ("TypedModuleList",)},
}

UTILITIES: dict[str, dict[str, str]] = {
    module: {name: f"{_PACKAGE}.{place}" for place, names in places.items() for name in names}
    for module, places in _PLACES.items()
}
"""Name to place, for each old module below `transformer_lens.utilities`."""

ALL: dict[str, str] = {name: place for table in UTILITIES.values() for name, place in table.items()}
"""Every name of them: what `transformer_lens.utils` has."""
