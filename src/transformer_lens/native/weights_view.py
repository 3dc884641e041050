"""The weights of all layers at once, under the field's names."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.errors import TransformerLensError
from transformer_lens.weights.composition import CompositionMode, all_composition_scores
from transformer_lens.weights.factored_matrix import FactoredMatrix


class StackedWeights(nn.Module):
    """Properties that stack a weight over layers (a copy: change the weights in `blocks` to change the model).

    Needs `cfg`, `blocks`, `embed`, `unembed` and, where positions are learned, `pos_embed`.
    """

    cfg: HookedTransformerConfig
    blocks: nn.ModuleList

    def _stack(self, part: str, name: str) -> Tensor:
        if part == "mlp" and self.cfg.attn_only:
            raise TransformerLensError(f"This model has no {name}: it is attention-only.")
        rows = []
        for block in self.blocks:
            module = getattr(block, part)
            if part == "mlp" and self.cfg.num_experts:
                rows.append(torch.stack([getattr(expert, name).weight.T for expert in module.experts]))
            else:
                rows.append(getattr(module, name))
        return torch.stack([row.to(rows[0].device) for row in rows])

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """Unembedding."""
        return self.unembed.W_U  # type: ignore[union-attr, return-value]

    @property
    def b_U(self) -> Float[Tensor, "d_vocab"]:
        """Bias of the unembedding."""
        return self.unembed.b_U  # type: ignore[union-attr, return-value]

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """Token embeddings."""
        return self.embed.W_E  # type: ignore[union-attr, return-value]

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        """Position embeddings.

        Raises:
            TransformerLensError: positions are not learned in this model.
        """
        if self.cfg.positional_embedding_type not in ("standard", "shortformer"):
            raise TransformerLensError(
                f"This model has no W_pos: its positions are {self.cfg.positional_embedding_type!r}."
            )
        return self.pos_embed.W_pos  # type: ignore[union-attr, return-value]

    @property
    def W_E_pos(self) -> Float[Tensor, "d_vocab_plus_n_ctx d_model"]:
        """Token embeddings above position embeddings, as one overcomplete basis of the input."""
        return torch.cat([self.W_E, self.W_pos])

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Query weights."""
        return self._stack("attn", "W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Key weights, one for each query head."""
        return self._stack("attn", "W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Value weights, one for each query head."""
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
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        """Key biases, one for each query head."""
        return self._stack("attn", "b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        """Value biases, one for each query head."""
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
        """Input biases of the MLPs; zeros for experts, which have none."""
        if self.cfg.num_experts:
            return self.W_in.new_zeros(self.cfg.n_layers, self.cfg.d_mlp or 0)
        return self._stack("mlp", "b_in")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """Output biases of the MLPs; zeros for experts, which have none."""
        if self.cfg.num_experts:
            return self.W_out.new_zeros(self.cfg.n_layers, self.cfg.d_model)
        return self._stack("mlp", "b_out")

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q · W_K^T of every head: [layer, head, d_model, d_model]."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """W_V · W_O of every head: [layer, head, d_model, d_model]."""
        return FactoredMatrix(self.W_V, self.W_O)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, "d_model"]:
        """The sum of b_O and b_out of all layers before `layer`.

        Args:
            layer: the layer whose input is meant; n_layers for the final stream.
            mlp_input: count b_O of `layer` too, as its MLP sees it.
            include_mlp_biases: count b_out.
        """
        total = self.W_E.new_zeros(self.cfg.d_model)
        for block in list(self.blocks)[:layer]:
            total = total + block.attn.b_O.to(total.device)  # type: ignore[union-attr, operator]
            if include_mlp_biases and not self.cfg.attn_only and not self.cfg.num_experts:
                total = total + block.mlp.b_out.to(total.device)  # type: ignore[union-attr, operator]
        if mlp_input:
            if layer >= self.cfg.n_layers:
                raise ValueError(f"mlp_input is about a layer's MLP; {layer} is past the last of {self.cfg.n_layers}.")
            total = total + self.blocks[layer].attn.b_O.to(total.device)  # type: ignore[union-attr, operator]
        return total

    def all_composition_scores(self, mode: CompositionMode) -> Float[Tensor, "layer head layer head"]:
        """How much of what each head reads ("Q", "K" or "V") comes from what each earlier head writes.

        See `transformer_lens.weights.composition.all_composition_scores`.
        """
        return all_composition_scores(mode, W_Q=self.W_Q, W_K=self.W_K, W_V=self.W_V, W_O=self.W_O)

    def all_head_labels(self) -> list[str]:
        """L0H0, L0H1, … in layer order."""
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in range(self.cfg.n_heads)]
