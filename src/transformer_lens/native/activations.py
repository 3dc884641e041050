"""Activation functions of the MLP by name."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu, softplus

from transformer_lens.config import TransformerLensConfig
from transformer_lens.errors import ConfigurationError


def gelu_new(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """GELU by the tanh formula (GPT-2's)."""
    return gelu(input, approximate="tanh")


def gelu_fast(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """GELU by the tanh formula with the constant rounded to 0.7978845608."""
    return 0.5 * input * (1.0 + torch.tanh(input * 0.7978845608 * (1.0 + 0.044715 * input * input)))


def quick_gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x · sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


def gelu_pytorch_tanh(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """GELU by the tanh formula, under the name that HuggingFace's configurations give it."""
    return gelu_new(input)


def solu(input: Float[Tensor, "... d_mlp"]) -> Float[Tensor, "... d_mlp"]:
    """x · softmax(x), the softmax linear unit (transformer-circuits.pub/2022/solu)."""
    return input * input.softmax(-1)


def relu2(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """relu(x)²."""
    return relu(input).square()


class XIELU(nn.Module):
    """Expanded integral of the exponential linear unit, with two learned slopes (arXiv 2411.13010)."""

    beta: Tensor
    eps: Tensor

    def __init__(
        self,
        alpha_p_init: float = 0.8,
        alpha_n_init: float = 0.8,
        beta_init: float = 0.5,
        eps: float = -1e-6,
        *,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.alpha_p = nn.Parameter(torch.tensor(alpha_p_init, dtype=dtype).expm1().log())
        self.alpha_n = nn.Parameter((torch.tensor(alpha_n_init, dtype=dtype) - beta_init).expm1().log())
        self.register_buffer("beta", torch.tensor(beta_init, dtype=dtype))
        self.register_buffer("eps", torch.tensor(eps, dtype=dtype))

    def forward(self, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A parabola above 0, an exponential below."""
        above, below = softplus(self.alpha_p), self.beta + softplus(self.alpha_n)
        negative = (torch.expm1(torch.minimum(input, self.eps)) - input) * below
        return torch.where(input > 0, above * input * input, negative) + self.beta * input


def xielu(input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """XIELU with the slopes it starts training from.

    Example:
        >>> xielu(torch.tensor([1.0]))  # 0.8 x² + 0.5 x
        tensor([1.3000])
    """
    result: Tensor = XIELU(dtype=input.dtype).to(input.device).requires_grad_(False)(input)
    return result


def softcap_enabled(cap: float | None) -> bool:
    """Whether a soft cap is one: configurations write None, 0 or -1 for none.

    Example:
        >>> softcap_enabled(30.0), softcap_enabled(-1.0), softcap_enabled(None)
        (True, False, False)
    """
    return cap is not None and cap > 0


def apply_softcap(x: Float[Tensor, "..."], cap: float | None) -> Float[Tensor, "..."]:
    """cap · tanh(x / cap), which stays between -cap and cap; x itself where there is no cap.

    Example:
        >>> apply_softcap(torch.tensor([0.0, 1e9]), 30.0)
        tensor([ 0., 30.])
    """
    return cap * (x / cap).tanh() if cap is not None and cap > 0 else x


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "relu2": relu2,
    "gelu": gelu,
    "gelu_new": gelu_new,
    "gelu_fast": gelu_fast,
    "gelu_pytorch_tanh": gelu_pytorch_tanh,
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
    return XIELU(dtype=dtype) if name == "xielu" else FUNCTIONS[name]


class ActivationFunctionFactory:
    """The activation function of a configuration, under the name that older code calls it by."""

    @staticmethod
    def pick_activation_function(cfg: TransformerLensConfig) -> Callable[[Tensor], Tensor]:
        """The activation function that `cfg.act_fn` names.

        Raises:
            ConfigurationError: there is none of this name.

        Example:
            >>> cfg = TransformerLensConfig(d_model=8, d_head=4, n_layers=1, n_ctx=6, act_fn="relu2")
            >>> ActivationFunctionFactory.pick_activation_function(cfg)(torch.tensor([-1.0, 3.0]))
            tensor([0., 9.])
        """
        known = [*FUNCTIONS, "xielu"]
        if cfg.act_fn not in known:
            raise ConfigurationError(f"No activation function is called {cfg.act_fn!r}; there are {', '.join(known)}.")
        return make_activation(cfg.act_fn, cfg.dtype)
