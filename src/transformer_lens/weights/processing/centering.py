"""Centring: taking out of matrices what nothing that follows can see.

Layer norms subtract the mean of the stream over d_model, so what is written into it needs none. Softmax ignores a
constant added to all logits, so the unembedding needs no mean over the vocabulary.
"""

import re

from torch import Tensor

from transformer_lens.weights.processing.parts import Part

# Name -> the axis that runs over d_model.
WRITING = {
    "embed.W_E": -1,
    "pos_embed.W_pos": -1,
    "attn.W_O": -1,
    "attn.b_O": -1,
    "mlp.W_out": -1,
    "mlp.b_out": -1,
}
EXPERT = re.compile(r"mlp\.experts\.\d+\.W_out\.(weight|bias)")  # weight: [d_model, d_mlp]


def center_writing(part: Part, *, positions_join_stream: bool) -> None:
    """Take the mean over d_model out of everything in this part that is added to the residual stream."""
    for name, tensor in part.items():
        if name == "pos_embed.W_pos" and not positions_join_stream:
            continue
        if name in WRITING:
            part[name] = _centered(tensor, WRITING[name])
        elif EXPERT.fullmatch(name):
            part[name] = _centered(tensor, 0)


def center_logits(part: Part) -> None:
    """Take the mean over the vocabulary out of the unembedding and its bias."""
    for name in ("unembed.W_U", "unembed.b_U"):
        if name in part:
            part[name] = _centered(part[name], -1)


def _centered(x: Tensor, axis: int) -> Tensor:
    return x - x.mean(axis, keepdim=True)
