"""The weights of a wrapped model, all layers at once, under the field's names."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.errors import TransformerLensError
from transformer_lens.weights.composition import CompositionMode, all_composition_scores
from transformer_lens.weights.factored_matrix import FactoredMatrix
from transformer_lens.wrapped.host import WrappedHost


class BridgeWeights:
    """Properties that stack a canonical weight over layers: copies, read from HF's parameters at each call.

    One layer's weight is `bridge.blocks[3].attn.W_Q`, which can be assigned too. Key and value weights have one entry
    for each key and value head. Biases that the model has not read as zeros.
    """

    host: WrappedHost
    cfg: TransformerBridgeConfig

    def _one(self, prefix: str, name: str, layer: int = 0) -> Tensor:
        found = self.host.weights.find(prefix, name, layer)
        if found is None:
            raise TransformerLensError(f"{self.host.anatomy.name} has no {name}.")
        return found

    def _stack(self, part: str, name: str) -> Tensor:
        if part == "mlp" and self.cfg.num_experts:
            return self._stack_experts(name)
        rows = [self._one(f"blocks.{{layer}}.{part}.", name, layer) for layer in range(self.cfg.n_layers)]
        return torch.stack([row.to(rows[0].device) for row in rows])

    def _stack_experts(self, name: str) -> Tensor:
        if name.startswith("b_"):  # as the native host, which adds experts' biases nowhere else
            width = self.cfg.d_mlp or 0 if name == "b_in" else self.cfg.d_model
            return self.W_U.new_zeros(self.cfg.n_layers, width)
        prefix, leaf = "blocks.{layer}.mlp.experts.{expert}.", f"{name}.weight"
        rows = [self._one(prefix, leaf, layer).transpose(-1, -2) for layer in range(self.cfg.n_layers)]
        return torch.stack([row.to(rows[0].device) for row in rows])

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """Token embeddings, as they enter the stream."""
        return self._one("embed.", "W_E")

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        """Position embeddings.

        Raises:
            TransformerLensError: positions are not learned in this model.
        """
        if not self.host.weights.has("pos_embed.W_pos"):
            kind = self.cfg.positional_embedding_type
            raise TransformerLensError(f"This model has no W_pos: its positions are {kind!r}.")
        return self._one("pos_embed.", "W_pos")

    @property
    def W_E_pos(self) -> Float[Tensor, "d_vocab_plus_n_ctx d_model"]:
        """Token embeddings above position embeddings, as one overcomplete basis of the input."""
        return torch.cat([self.W_E, self.W_pos])

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """Unembedding."""
        return self._one("unembed.", "W_U")

    @property
    def b_U(self) -> Float[Tensor, "d_vocab"]:
        """Bias of the unembedding."""
        return self._one("unembed.", "b_U")

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Query weights."""
        return self._stack("attn", "W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer kv_head d_model d_head"]:
        """Key weights."""
        return self._stack("attn", "W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer kv_head d_model d_head"]:
        """Value weights."""
        return self._stack("attn", "W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Output weights of attention."""
        return self._stack("attn", "W_O")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """Query biases."""
        return self._stack("attn", "b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer kv_head d_head"]:
        """Key biases."""
        return self._stack("attn", "b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer kv_head d_head"]:
        """Value biases."""
        return self._stack("attn", "b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """Output biases of attention."""
        return self._stack("attn", "b_O")

    @property
    def W_in(self) -> Float[Tensor, "layer *expert d_model d_mlp"]:
        """Input weights of the MLPs."""
        return self._stack("mlp", "W_in")

    @property
    def W_gate(self) -> Float[Tensor, "layer *expert d_model d_mlp"] | None:
        """Gate weights of the MLPs; None where they have no gate."""
        return self._stack("mlp", "W_gate") if self.cfg.gated_mlp else None

    @property
    def W_out(self) -> Float[Tensor, "layer *expert d_mlp d_model"]:
        """Output weights of the MLPs."""
        return self._stack("mlp", "W_out")

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """Input biases of the MLPs; zeros for experts."""
        return self._stack("mlp", "b_in")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """Output biases of the MLPs; zeros for experts."""
        return self._stack("mlp", "b_out")

    def _for_each_query_head(self, weight: Float[Tensor, "layer kv_head x y"]) -> Float[Tensor, "layer head x y"]:
        return weight.repeat_interleave(self.cfg.n_heads // weight.shape[1], 1)

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q · W_K^T of every query head: [layer, head, d_model, d_model]."""
        return FactoredMatrix(self.W_Q, self._for_each_query_head(self.W_K).transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """W_V · W_O of every query head: [layer, head, d_model, d_model]."""
        return FactoredMatrix(self._for_each_query_head(self.W_V), self.W_O)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, "d_model"]:
        """The sum of b_O and b_out of all layers before `layer`.

        Args:
            layer: the layer whose input is meant; n_layers for the final stream.
            mlp_input: count b_O of `layer` too, as its MLP sees it.
            include_mlp_biases: count b_out.

        Raises:
            ValueError: mlp_input for a layer that does not exist.
        """
        if mlp_input and layer >= self.cfg.n_layers:
            raise ValueError(f"mlp_input is about a layer's MLP; {layer} is past the last of {self.cfg.n_layers}.")
        total = self.b_O[: layer + mlp_input].sum(0)
        return total + self.b_out[:layer].sum(0) if include_mlp_biases else total

    def all_composition_scores(self, mode: CompositionMode) -> Float[Tensor, "layer head layer head"]:
        """How much of what each head reads ("Q", "K" or "V") comes from what each earlier head writes.

        See `transformer_lens.weights.composition.all_composition_scores`.
        """
        W_K, W_V = (self._for_each_query_head(weight) for weight in (self.W_K, self.W_V))
        return all_composition_scores(mode, W_Q=self.W_Q, W_K=W_K, W_V=W_V, W_O=self.W_O)
