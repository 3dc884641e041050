"""Reading: what is done with every part of a stream: positions picked, divided by a norm's scale, projected.

All of it is linear once the scales are known. So the part that is the same at every position is done to weights
(small), the division to what multiplies them (small), and a stack of parts is written once, by a matmul.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.cache.readout import NormReadout
from transformer_lens.cache.run import Run, as_slice, cached_scale, norm_at
from transformer_lens.hooks import Slice, SliceInput


@dataclass(frozen=True)
class Reading:
    """How the parts of a stream are read.

    Attributes:
        width: length of `out` below: d_model, or how many directions there are.
        positions: which positions; an int drops the axis.
        norm: the norm that the stream goes through; None: it is read as it is.
        scale: what that norm divided by at these positions, [*batch_and_pos, 1].
        onto: directions to project onto, [d_model, out]; None: none.
    """

    width: int
    positions: Slice
    norm: NormReadout | None = None
    scale: Float[Tensor, "*batch_and_pos 1"] | None = None
    onto: Float[Tensor, "d_model out"] | None = None

    def at_positions(self, x: Float[Tensor, "*batch pos last"]) -> Float[Tensor, "*batch_and_pos last"]:
        """These positions of an activation whose position axis is the last but one."""
        return self.positions.apply(x, dim=-2)

    def turned(
        self, x: Float[Tensor, "*rows d_model"], written_through: NormReadout | None = None
    ) -> Float[Tensor, "*rows out"]:
        """What vectors written into the stream become, but for the division by scales: centred, weighted, projected.

        Args:
            x: the vectors, which may be rows of a weight.
            written_through: the norm between them and the stream, if there is one.
        """
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if written_through is not None:
            wide = written_through.weighted(written_through.centred(wide))
        if self.norm is not None:
            wide = self.norm.centred(wide)
        return (wide if self.onto is None else wide @ self.onto.to(wide)).to(x.dtype)

    def divided(
        self, x: Float[Tensor, "*rows last"], *scales: Float[Tensor, "*batch_and_pos 1"] | None
    ) -> Float[Tensor, "*rows last"]:
        """X divided by these scales and by that of the norm the stream is read through; in x's dtype."""
        product: Tensor | None = None
        for scale in (*scales, self.scale):
            if scale is not None:
                here = scale.to(x.device)
                product = here if product is None else product * here
        return x if product is None else (x / product).to(x.dtype)


def reading_of(
    run: Run,
    layer: int,
    mlp_input: bool = False,
    *,
    apply_ln: bool = False,
    pos_slice: Slice | SliceInput = None,
    project_output_onto: Float[Tensor, "d_model *out"] | None = None,
) -> Reading:
    """How the input of a layer (n_layers: the final stream) is read.

    Args:
        run: the cache.
        layer: 0 … n_layers.
        mlp_input: the layer's MLP reads.
        apply_ln: through the norm there, by its cached scale and without its weight and bias.
        pos_slice: at these positions.
        project_output_onto: one direction [d_model] or several [d_model, out].

    Raises:
        ValueError: the directions have other axes than that.
    """
    positions = as_slice(pos_slice)
    onto, d_model = project_output_onto, run.readout.d_model
    if onto is not None and (onto.ndim not in (1, 2) or onto.shape[0] != d_model):
        raise ValueError(f"project_output_onto has shape [{d_model}] or [{d_model}, out]; got {tuple(onto.shape)}.")
    onto = onto[:, None] if onto is not None and onto.ndim == 1 else onto
    norm = norm_at(run, layer, mlp_input) if apply_ln else None
    return Reading(
        width=d_model if onto is None else onto.shape[1],
        positions=positions,
        norm=norm,
        scale=None if norm is None else positions.apply(cached_scale(run, norm), dim=-2),
        onto=onto,
    )


def post_scale(run: Run, reading: Reading, norm: NormReadout | None) -> Tensor | None:
    """What a norm through which a layer writes divided by, at the positions of a reading; None: no such norm."""
    return None if norm is None else reading.at_positions(cached_scale(run, norm))
