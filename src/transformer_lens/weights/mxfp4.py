"""Weights stored as MXFP4 (OCP Microscaling Formats 1.0), as gpt-oss publishes its experts, read as plain tensors."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from transformer_lens.weights.checkpoints import TensorSource

# The sixteen numbers of four bits: a sign, two bits of exponent, one of mantissa.
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
BLOCKS, SCALES = "_blocks", "_scales"


class UnpackedSource:
    """A source whose packed pairs `x_blocks`, `x_scales` read as one bfloat16 tensor `x`; the rest is as it is."""

    lends = False

    def __init__(self, source: TensorSource):
        self.source = source
        stored = set(source.names())
        self.packed = {
            name.removesuffix(BLOCKS)
            for name in stored
            if name.endswith(BLOCKS) and name.removesuffix(BLOCKS) + SCALES in stored
        }

    def names(self) -> list[str]:
        """The names of all tensors, packed pairs under one."""
        parts = {name + end for name in self.packed for end in (BLOCKS, SCALES)}
        return [*(name for name in self.source.names() if name not in parts), *sorted(self.packed)]

    def read(self, name: str) -> Shaped[Tensor, "..."]:
        """The tensor of this name, unpacked if it is stored packed."""
        if name not in self.packed:
            return self.source.read(name)
        return unpack(self.source.read(name + BLOCKS), self.source.read(name + SCALES))

    def where(self, name: str) -> str:
        """Which file holds it."""
        return self.source.where(name + BLOCKS if name in self.packed else name)


def unpack(
    blocks: UInt8[Tensor, "expert out block byte"], scales: UInt8[Tensor, "expert out block"]
) -> Float[Tensor, "expert in out"]:
    """The bfloat16 weights of packed experts, input axis before output axis, as the model holds them.

    Each byte holds two numbers, the low half first; each block shares a power of two.

    Example:
        >>> unpack(torch.tensor([[[[0x21]]]], dtype=torch.uint8), torch.tensor([[[128]]], dtype=torch.uint8))
        tensor([[[1.],
                 [2.]]], dtype=torch.bfloat16)
    """
    table = torch.tensor(VALUES, dtype=torch.bfloat16, device=blocks.device)
    pairs = torch.stack([table[(blocks & 0x0F).int()], table[(blocks >> 4).int()]], -1)
    numbers = torch.ldexp(pairs.flatten(-2), scales[..., None].int() - 127)
    return numbers.flatten(-2).transpose(1, 2).to(torch.bfloat16)
