"""What is measured in a sweep: any function of logits, or a metric that says which logits it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Logits = Float[Tensor, "batch pos d_vocab"]
Metric = Callable[[Logits], Tensor]


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """logit(answer) - logit(wrong) at one position, for each row. In a sweep, only these logits are computed.

    Attributes:
        answer: the token that counts for, one or one for each row.
        wrong: the token that counts against; None: the answer's logit alone.
        pos: the position that predicts.

    Example:
        >>> LogitDifference(answer=1, wrong=0)(torch.tensor([[[1.0, 3.0, 0.0]]]))
        tensor([2.])
    """

    answer: int | Int[Tensor, "batch"]
    wrong: int | Int[Tensor, "batch"] | None = None
    pos: int = -1

    def tokens(self, batch: int) -> Int[Tensor, "batch token"]:
        """The tokens whose logits are needed."""
        columns = [self.answer] if self.wrong is None else [self.answer, self.wrong]
        return torch.stack([torch.as_tensor(column).expand(batch) for column in columns], 1)

    def of_tokens(self, logits: Float[Tensor, "batch token"]) -> Float[Tensor, "batch"]:
        """The metric from the logits of `tokens` at `pos`."""
        return logits[:, 0] if self.wrong is None else logits[:, 0] - logits[:, 1]

    def __call__(self, logits: Logits) -> Float[Tensor, "batch"]:
        """The metric from all logits."""
        tokens = self.tokens(logits.shape[0]).to(logits.device)
        return self.of_tokens(logits[:, self.pos].gather(-1, tokens))
