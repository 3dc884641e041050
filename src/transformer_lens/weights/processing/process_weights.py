"""The steps of weight processing as static methods over state dicts, which is how older code calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.weights import processing as steps

StateDict = dict[str, Tensor]


class ProcessWeights:
    """Steps of weight processing, each from a state dict in the names of `HookedTransformer` to a new one.

    The state dict that is given stays as it is. `adapter` must be None: weights in HuggingFace's names are processed by
    `TransformerBridge.enable_compatibility_mode`.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer({"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20})
        >>> centred = ProcessWeights.center_unembed(model.state_dict(), model.cfg)
        >>> bool(centred["unembed.W_U"].mean(-1).abs().max() < 1e-6)
        True
    """

    @staticmethod
    def fold_layer_norm(
        state_dict: Mapping[str, Tensor],
        cfg: HookedTransformerConfig,
        fold_biases: bool = True,
        center_weights: bool = True,
        adapter: None = None,
    ) -> StateDict:
        """Weights of norms moved into what reads them."""
        return dict(steps.fold_layer_norm(_copy(state_dict, adapter), cfg, fold_biases, center_weights))

    @staticmethod
    def center_writing_weights(
        state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig, adapter: None = None
    ) -> StateDict:
        """The mean over d_model taken out of all that is written into the stream."""
        return dict(steps.center_writing_weights(_copy(state_dict, adapter), cfg))

    @staticmethod
    def center_unembed(
        state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig, adapter: None = None
    ) -> StateDict:
        """The mean over the vocabulary taken out of W_U and b_U."""
        return dict(steps.center_unembed(_copy(state_dict, adapter), cfg))

    @staticmethod
    def fold_value_biases(
        state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig, adapter: None = None
    ) -> StateDict:
        """b_V moved through W_O into b_O."""
        return dict(steps.fold_value_biases(_copy(state_dict, adapter), cfg))

    @staticmethod
    def refactor_factored_attn_matrices(
        state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig, adapter: None = None
    ) -> StateDict:
        """Each head rewritten in the basis of its singular vectors."""
        return dict(steps.refactor_factored_attn_matrices(_copy(state_dict, adapter), cfg))

    @staticmethod
    def process_weights(
        state_dict: Mapping[str, Tensor],
        cfg: HookedTransformerConfig,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        fold_value_biases: bool = True,
        refactor_factored_attn_matrices: bool = False,
        adapter: None = None,
    ) -> StateDict:
        """All these steps in order. Where norms were folded, the caller sets normalization_type "LNPre" or "RMSPre"."""
        state, _ = steps.process(
            _copy(state_dict, adapter),
            cfg,
            fold_ln=fold_ln,
            center_writing_weights=center_writing_weights,
            center_unembed=center_unembed,
            fold_value_biases=fold_value_biases,
            refactor_factored_attn_matrices=refactor_factored_attn_matrices,
        )
        return dict(state)


def _copy(state_dict: Mapping[str, Tensor], adapter: Any) -> StateDict:
    if adapter is not None:
        raise ValueError(
            "adapter: weights in HuggingFace's names are processed by TransformerBridge.enable_compatibility_mode()."
        )
    return dict(state_dict)
