"""Activation functions of the MLP by name."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu, softplus


def gelu_new(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """GELU by the tanh formula (GPT-2's)."""
    return gelu(x, approximate="tanh")


def gelu_fast(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """GELU by the tanh formula with the constant rounded to 0.7978845608."""
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def quick_gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x · sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


def solu(x: Float[Tensor, "... d_mlp"]) -> Float[Tensor, "... d_mlp"]:
    """x · softmax(x), the softmax linear unit (transformer-circuits.pub/2022/solu)."""
    return x * x.softmax(-1)


def relu2(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """relu(x)²."""
    return relu(x).square()


class XIELU(nn.Module):
    """Expanded integral of the exponential linear unit, with two learned slopes (arXiv 2411.13010)."""

    beta: Tensor
    eps: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32):
        super().__init__()
        start = torch.tensor(0.8, dtype=dtype)
        self.alpha_p = nn.Parameter(start.expm1().log())
        self.alpha_n = nn.Parameter((start - 0.5).expm1().log())
        self.register_buffer("beta", torch.tensor(0.5, dtype=dtype))
        self.register_buffer("eps", torch.tensor(-1e-6, dtype=dtype))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A parabola for x > 0, an exponential for x < 0."""
        above, below = softplus(self.alpha_p), self.beta + softplus(self.alpha_n)
        negative = (torch.expm1(torch.minimum(x, self.eps)) - x) * below
        return torch.where(x > 0, above * x * x, negative) + self.beta * x


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "relu2": relu2,
    "gelu": gelu,
    "gelu_new": gelu_new,
    "gelu_fast": gelu_fast,
    "gelu_pytorch_tanh": gelu_new,
    "quick_gelu": quick_gelu,
    "silu": silu,
    "solu": solu,
    "solu_ln": solu,
    "tanh": torch.tanh,
}


def make_activation(name: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The activation function of this name (a module where it has parameters).

    Example:
        >>> make_activation("relu", torch.float32)(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    return XIELU(dtype) if name == "xielu" else FUNCTIONS[name]
