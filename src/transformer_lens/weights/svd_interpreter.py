"""The singular vectors of a model's weights, read as tokens."""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.weights.factored_matrix import FactoredMatrix, upcast_for_linalg
from transformer_lens.weights.matrix_index import WeightsError

VectorType = Literal["OV", "w_in", "w_out"]


class AttentionWeights(Protocol):
    """What is read of an attention layer."""

    @property
    def W_V(self) -> Tensor:
        """Axes [heads or kv heads, d_model, d_head]."""
        ...

    @property
    def W_O(self) -> Tensor:
        """Axes [heads, d_head, d_model]."""
        ...


class MLPWeights(Protocol):
    """What is read of an MLP."""

    @property
    def W_in(self) -> Tensor:
        """Axes [d_model, d_mlp]."""
        ...

    @property
    def W_out(self) -> Tensor:
        """Axes [d_mlp, d_model]."""
        ...


class NormWeights(Protocol):
    """What is read of a norm."""

    @property
    def w(self) -> Tensor:
        """Axes [d_model]."""
        ...


class BlockWeights(Protocol):
    """What is read of a block; only the part that is asked for needs to exist."""

    @property
    def attn(self) -> AttentionWeights:
        """The attention layer, for "OV"."""
        ...

    @property
    def ln2(self) -> NormWeights:
        """The norm that the MLP reads, for "w_in"."""
        ...

    @property
    def mlp(self) -> MLPWeights:
        """The MLP, for "w_in" and "w_out"."""
        ...


class ModelWeights(Protocol):
    """What is read of a model."""

    @property
    def blocks(self) -> Sequence[BlockWeights]:
        """The layers in order."""
        ...

    @property
    def W_U(self) -> Tensor:
        """Axes [d_model, d_vocab]."""
        ...


class SVDInterpreter:
    """Reads the main directions of OV circuits and MLP weights through the unembedding.

    Source: Millidge and Black 2022, "The Singular Value Decompositions of Transformer Weight Matrices are Highly
    Interpretable". Signs are arbitrary, and directions with nearly equal singular values mix differently on
    different devices. Fold the layer norms first if the tokens should mean logits.
    """

    def __init__(self, model: ModelWeights) -> None:
        self.model = model

    @torch.no_grad()
    def get_singular_vectors(
        self, vector_type: VectorType, layer_index: int, num_vectors: int = 10, head_index: int | None = None
    ) -> Float[Tensor, "d_vocab 1 num_vectors"]:
        """The leading singular vectors in the residual stream times W_U, one column each, largest value first.

        "OV": right singular vectors of W_V W_O of one head (what it writes). "w_in": left singular vectors of W_in,
        scaled by the weight of the norm before it (what the MLP reads). "w_out": right singular vectors of W_out
        (what it writes). Under grouped queries a head uses the W_V of its group.

        Raises:
            WeightsError: for an unknown vector type, a layer, head or number of vectors that does not exist, "OV"
                without a head, an MLP with one, or a block that lacks the weight.

        >>> from types import SimpleNamespace as Part
        >>> attn = Part(W_V=torch.randn(2, 8, 4), W_O=torch.randn(2, 4, 8))
        >>> model = Part(blocks=[Part(attn=attn)], W_U=torch.randn(8, 50))
        >>> SVDInterpreter(model).get_singular_vectors("OV", layer_index=0, num_vectors=3, head_index=1).shape
        torch.Size([50, 1, 3])
        """
        if vector_type not in get_args(VectorType):
            raise WeightsError(f"vector_type is {vector_type!r}; known: {', '.join(get_args(VectorType))}")
        if (vector_type == "OV") != (head_index is not None):
            raise WeightsError(
                f"{vector_type!r} with head_index={head_index}: 'OV' needs a head, 'w_in' and 'w_out' none"
            )
        n_layers = len(self.model.blocks)
        if not 0 <= layer_index < n_layers:
            raise WeightsError(f"layer_index is {layer_index}; the model has layers 0 to {n_layers - 1}")
        try:
            directions = _directions(self.model.blocks[layer_index], head_index, vector_type)
        except AttributeError as error:
            raise WeightsError(f"layer {layer_index} has no weights for {vector_type!r}: {error}") from error
        if not 0 < num_vectors <= directions.shape[1]:
            raise WeightsError(
                f"num_vectors is {num_vectors}; {vector_type!r} of layer {layer_index} has 1 to {directions.shape[1]}"
            )
        W_U = self.model.W_U
        read: Tensor = W_U.mT @ directions[:, :num_vectors].to(W_U)
        return read[:, None, :]


def _directions(block: BlockWeights, head_index: int | None, vector_type: VectorType) -> Float[Tensor, "d_model rank"]:
    """The singular vectors on the residual stream's side, as columns."""
    if head_index is not None:
        W_V, W_O = block.attn.W_V, block.attn.W_O
        n_heads = W_O.shape[0]
        if not 0 <= head_index < n_heads:
            raise WeightsError(f"head_index is {head_index}; the layer has heads 0 to {n_heads - 1}")
        return FactoredMatrix(W_V[head_index // (n_heads // W_V.shape[0])], W_O[head_index]).V
    # Both matrices as [d_model, d_mlp], so that the residual stream is always on the left.
    matrix = block.ln2.w[:, None] * block.mlp.W_in if vector_type == "w_in" else block.mlp.W_out.mT
    U: Tensor = torch.linalg.svd(upcast_for_linalg(matrix), full_matrices=False).U
    return U
