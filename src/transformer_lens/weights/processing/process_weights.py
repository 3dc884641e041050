"""The steps of weight processing as static methods over state dicts, which is how older code calls them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.weights import one_by_one as layouts
from transformer_lens.weights import processing as steps
from transformer_lens.weights.one_by_one import Layouts
from transformer_lens.weights.processing import single
from transformer_lens.weights.processing.centering import center_logits
from transformer_lens.weights.processing.parts import apply

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
        state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig | None = None, adapter: None = None
    ) -> StateDict:
        """The mean over the vocabulary taken out of W_U and b_U.

        Without `cfg` it is taken that logits have no soft cap, under which that would change the model.
        """
        state = _copy(state_dict, adapter)
        return dict(steps.center_unembed(state, cfg)) if cfg is not None else _without_mean(state)

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

    @staticmethod
    def fold_layer_norm_bias_single(w_tensor: Tensor, b_tensor: Tensor, ln_bias: Tensor) -> Tensor:
        """The bias of what reads a norm, the norm's bias folded in.

        Args:
            w_tensor: [d_model, out], or [head, d_model, d_head].
            b_tensor: [out], or [head, d_head].
            ln_bias: [d_model].
        """
        return single.fold_norm_bias(w_tensor, b_tensor, ln_bias)

    @staticmethod
    def fold_layer_norm_weight_single(w_tensor: Tensor, ln_weight: Tensor) -> Tensor:
        """The matrix that reads a norm, the norm's weight folded in; shapes as above."""
        return single.fold_norm_weight(w_tensor, ln_weight)

    @staticmethod
    def center_weight_single(w_tensor: Tensor) -> Tensor:
        """The matrix that reads a layer norm, without its mean over d_model; shapes as above."""
        return single.center_input(w_tensor)

    @staticmethod
    def fold_layer_norm_biases(
        wq_tensor: Tensor,
        wk_tensor: Tensor,
        wv_tensor: Tensor,
        bq_tensor: Tensor | None,
        bk_tensor: Tensor | None,
        bv_tensor: Tensor | None,
        ln_bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """b_Q, b_K and b_V with the norm's bias folded in; a bias that is None counts as zeros."""
        q, k, v = (
            single.fold_norm_bias(w, w.new_zeros(w.shape[:-2] + w.shape[-1:]) if b is None else b, ln_bias)
            for w, b in ((wq_tensor, bq_tensor), (wk_tensor, bk_tensor), (wv_tensor, bv_tensor))
        )
        return q, k, v

    @staticmethod
    def fold_layer_norm_weights(
        wq_tensor: Tensor, wk_tensor: Tensor, wv_tensor: Tensor, ln_weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """W_Q, W_K and W_V with the norm's weight folded in."""
        q, k, v = (single.fold_norm_weight(w, ln_weight) for w in (wq_tensor, wk_tensor, wv_tensor))
        return q, k, v

    @staticmethod
    def center_attention_weights(
        wq_tensor: Tensor, wk_tensor: Tensor, wv_tensor: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """W_Q, W_K and W_V without their means over d_model."""
        q, k, v = (single.center_input(w) for w in (wq_tensor, wk_tensor, wv_tensor))
        return q, k, v

    @staticmethod
    def extract_attention_tensors_for_folding(
        state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig, layer: int, adapter: Layouts | None
    ) -> dict[str, Any]:
        """The tensors of a layer's attention and of the norm before it, in canonical shapes; None where there is none.

        Args:
            state_dict: canonical names; with `adapter` transformers' names.
            cfg: not needed: shapes say it.
            layer: which layer.
            adapter: `bridge.host.anatomy`, which knows where transformers keeps them.

        Returns:
            "wq", "wk", "wv", "bq", "bk", "bv", "ln1_w", "ln1_b", and "keys": under which names they are there.
        """
        return layouts.attention_tensors(state_dict, layer, adapter)

    @staticmethod
    def convert_tensor_to_tl_format(
        param_name: str,
        model_state_dict: Mapping[str, Tensor],
        tensor: Tensor | None,
        cfg: HookedTransformerConfig | None,
        adapter: Layouts | None = None,
        layer_idx: int | None = None,
    ) -> Tensor | None:
        """A tensor of transformers' as the canonical one that it holds; None if the model has no such.

        Args:
            param_name: the canonical one: "blocks.0.attn.W_Q", or "blocks.0.attn.q.weight".
            model_state_dict: under transformers' names; looked at where `tensor` is None.
            tensor: transformers' tensor, whole also where it holds several.
            cfg: not needed: `adapter` knows it.
            adapter: `bridge.host.anatomy`. None: the tensor comes back as it is.
            layer_idx: the layer, where the name says none.
        """
        return (
            tensor if adapter is None else layouts.canonical(adapter, param_name, model_state_dict, tensor, layer_idx)
        )

    @staticmethod
    def convert_tensor_to_hf_format(
        param_name: str,
        tensor: Tensor | None,
        cfg: HookedTransformerConfig | None,
        adapter: Layouts | None = None,
        layer_idx: int | None = None,
    ) -> Tensor | None:
        """A canonical tensor as transformers keeps it; `convert_tensor_to_tl_format` backwards. Arguments as there.

        Raises:
            UnknownNameError: the model has no such tensor.
            WeightsError: transformers keeps it in one tensor with others: `bridge.load_state_dict` writes them.
        """
        if tensor is None or adapter is None:
            return tensor
        return layouts.transformers_own(adapter, param_name, tensor, layer_idx)

    @staticmethod
    def distribute_weights_to_components(
        state_dict: Mapping[str, Tensor], component_mapping: Mapping[str, tuple[str, Any]], verbose: bool = False
    ) -> None:
        """Nothing; afterwards the parts of a bridge hold these weights.

        Args:
            state_dict: canonical names.
            component_mapping: name -> (transformers' path, part or list of parts): `{"embed": ("transformer.wte",
                bridge.embed), "blocks": ("transformer.h", list(bridge.blocks))}`.
            verbose: log each weight.

        Raises:
            WeightsError: a weight for which no part is named.
        """
        parts = {name: part for name, (_, part) in component_mapping.items()}
        layouts.distribute(state_dict, parts, logging.INFO if verbose else logging.DEBUG)


def _copy(state_dict: Mapping[str, Tensor], adapter: Any) -> StateDict:
    if adapter is not None:
        raise ValueError(
            "adapter: weights in HuggingFace's names are processed by TransformerBridge.enable_compatibility_mode()."
        )
    return dict(state_dict)


def _without_mean(state: StateDict) -> StateDict:
    apply(state, [center_logits])
    return state
