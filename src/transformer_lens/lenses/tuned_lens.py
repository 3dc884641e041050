"""The tuned lens: an affine map for each layer, trained so that the final norm and unembedding read it best."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from transformer_lens.cache.activation_cache import ActivationCache
from transformer_lens.cache.logit_lens import Lens
from transformer_lens.cache.logit_lens import logit_lens as read_cache
from transformer_lens.cache.logit_readout import ReadoutOptions
from transformer_lens.cache.readout import Readout, readout_of
from transformer_lens.cache.run import Question
from transformer_lens.errors import ConfigurationError
from transformer_lens.lenses.runs import sample, stream_names

Optimizer = Literal["adam", "sgd"]
WEIGHTS, ABOUT = "tuned_lens.safetensors", "tuned_lens.json"


@dataclass(frozen=True)
class TunedLensOptions:
    """How a tuned lens is trained. The learning rate falls linearly to zero.

    Attributes:
        optimizer: "adam", or "sgd" with Nesterov momentum.
        learning_rate: at the start; None: 1e-3 for adam, 1.0 for sgd (as in the paper).
        momentum: of sgd; None: 0.9. Adam takes none.
        weight_decay: pulls the maps towards the identity.
        steps: batches to train on.
        batch_size: rows of tokens in each.
        chunk_size: how many positions are unembedded at a time.
        seed: of the order of the rows.
        verbose: show a progress bar.

    Example:
        >>> TunedLensOptions(optimizer="sgd", steps=100).rate
        1.0
    """

    optimizer: Optimizer = "adam"
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float = 0.0
    steps: int = 250
    batch_size: int = 8
    chunk_size: int = 256
    seed: int = 0
    verbose: bool = True

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(Optimizer):
            raise ConfigurationError(f"optimizer is one of {', '.join(get_args(Optimizer))}; got {self.optimizer!r}.")
        if self.optimizer == "adam" and self.momentum is not None:
            raise ConfigurationError("momentum has no effect with adam; leave it out, or set optimizer='sgd'.")
        for name in ("steps", "batch_size", "chunk_size"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is at least 1; got {getattr(self, name)}.")

    @property
    def rate(self) -> float:
        """The learning rate at the start."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-3 if self.optimizer == "adam" else 1.0

    def make(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """The optimizer."""
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.rate, weight_decay=self.weight_decay)
        momentum = 0.9 if self.momentum is None else self.momentum
        return torch.optim.SGD(
            parameters, self.rate, momentum=momentum, weight_decay=self.weight_decay, nesterov=momentum > 0
        )


@dataclass(frozen=True, eq=False)
class TunedLens:
    """An affine map of the stream entering each layer; given to `logit_lens(lens=…)`.

    The stream h becomes h + h · weight[layer] + bias[layer]: zeros are the logit lens. The final stream stays itself.

    Attributes:
        weight: one matrix for each layer.
        bias: one vector for each layer.
        about: what it was trained on and how, as JSON can hold it.
    """

    weight: Float[Tensor, "layer d_model d_model"]
    bias: Float[Tensor, "layer d_model"]
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def identity(cls, model: Any) -> TunedLens:
        """The lens that changes nothing: the logit lens.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> model = HookedTransformer.from_pretrained("demo")
            >>> TunedLens.identity(model)(torch.ones(3, 128), 1).sum().item()
            384.0
        """
        n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
        like = {"device": model.W_U.device, "dtype": torch.float32}
        return cls(torch.zeros(n_layers, d_model, d_model, **like), torch.zeros(n_layers, d_model, **like))

    def __call__(self, stream: Float[Tensor, "*row d_model"], layer: int) -> Float[Tensor, "*row d_model"]:
        """The stream entering a layer (n_layers: the final one), mapped to where the final stream would be.

        Raises:
            ValueError: the lens has no such layer, or another width.
        """
        n_layers, d_model = self.bias.shape
        if not 0 <= layer <= n_layers or stream.shape[-1] != d_model:
            raise ValueError(
                f"This lens is of {n_layers} layers and width {d_model}; got layer {layer}, a stream of width "
                f"{stream.shape[-1]}."
            )
        if layer == n_layers:
            return stream
        weight, bias = self.weight[layer].to(stream.device), self.bias[layer].to(stream.device)
        return (stream + (stream.to(weight.dtype) @ weight + bias)).to(stream.dtype)

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write the lens into a folder, which is made: the maps as safetensors, the rest as JSON; returns it."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        weights = {"weight": self.weight, "bias": self.bias}
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path / WEIGHTS)
        (path / ABOUT).write_text(json.dumps(self.about, indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | PathLike[str], device: str = "cpu") -> TunedLens:
        """The lens that was saved in a folder.

        Example:
            >>> import tempfile
            >>> lens = TunedLens(torch.zeros(2, 4, 4), torch.ones(2, 4), {"model": "toy"})
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     TunedLens.load(lens.save(folder)).about
            {'model': 'toy'}
        """
        weights = load_file(Path(folder) / WEIGHTS, device=device)
        about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
        return cls(weights["weight"], weights["bias"], about)


def train_tuned_lens(model: Any, tokens: Int[Tensor, "row pos"], options: TunedLensOptions | None = None) -> TunedLens:
    """The tuned lens of a model, trained on rows of tokens.

    Each layer's map begins as the identity and is trained to lower the mean Kullback-Leibler divergence of the model's
    final distribution from what is read at that layer. The model is not changed. Source: Belrose et al., "Eliciting
    Latent Predictions from Transformers with the Tuned Lens", 2023, arXiv 2303.08112.

    Args:
        model: the model, on either host.
        tokens: rows of one length, without padding.
        options: how; None: as TunedLensOptions says.

    Raises:
        ValueError: there are no rows.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> tokens = torch.randint(0, 3000, (16, 12), generator=torch.Generator().manual_seed(0))
        >>> lens = train_tuned_lens(model, tokens, TunedLensOptions(steps=20, learning_rate=1e-2, verbose=False))
        >>> bool((mean_kl(model, tokens, lens) < mean_kl(model, tokens))[:-1].all())
        True
    """
    options = TunedLensOptions() if options is None else options
    if tokens.ndim != 2 or not len(tokens):
        raise ValueError(f"tokens has shape [row, pos], at least one row; got {tuple(tokens.shape)}.")
    readout = readout_of(model)
    lens = TunedLens.identity(model)
    parameters = [lens.weight.requires_grad_(), lens.bias.requires_grad_()]
    optimizer = options.make(parameters)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / options.steps)
    bar = tqdm(_batches(len(tokens), options), total=options.steps, disable=not options.verbose, desc="tuned lens")
    for rows in bar:
        cache = sample(model, tokens[rows], stream_names(model.cfg.n_layers)).cache
        optimizer.zero_grad()
        kl = _backward(lens, readout, cache, options.chunk_size)
        optimizer.step()
        schedule.step()
        bar.set_postfix(kl=f"{kl:.3f}")
    about = {
        "model": model.cfg.model_name,
        "tokens": list(tokens.shape),
        "options": asdict(options) | {"learning_rate": options.rate},
    }
    return TunedLens(lens.weight.detach(), lens.bias.detach(), about)


@torch.no_grad()
def mean_kl(
    model: Any, tokens: Int[Tensor, "row pos"], lens: Lens | None = None, *, batch_size: int = 8
) -> Float[Tensor, "layer_and_final"]:
    """The mean KL divergence of the final distribution from what is read at each layer, in nats; the last entry is 0.

    Args:
        model: the model, on either host.
        tokens: rows of one length, without padding.
        lens: None: the logit lens.
        batch_size: rows that run at a time.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> mean_kl(model, torch.arange(24).reshape(2, 12)).shape
        torch.Size([5])
    """
    total, options = torch.zeros(model.cfg.n_layers + 1, dtype=torch.float64), ReadoutOptions(vocab=[0])
    for rows in tokens.split(batch_size):
        cache = sample(model, rows, stream_names(model.cfg.n_layers)).cache
        found = read_cache(Question(cache), options, positions=None, lens=lens, compare_to_final=True)
        assert found.readout.final is not None
        total += found.readout.final.kl.double().sum((1, 2)).cpu()
    return (total / tokens.numel()).float()


def _batches(n_rows: int, options: TunedLensOptions) -> Iterator[Int[Tensor, "batch"]]:
    """Indices of rows, `steps` times: all rows in a random order, and again."""
    generator = torch.Generator().manual_seed(options.seed)
    size = min(options.batch_size, n_rows)
    waiting = torch.empty(0, dtype=torch.long)
    for _ in range(options.steps):
        if len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(n_rows, generator=generator)])
        batch, waiting = waiting[:size], waiting[size:]
        yield batch


def _backward(lens: TunedLens, readout: Readout, cache: ActivationCache, chunk_size: int) -> float:
    """Adds the gradients of every layer's mean KL, a chunk of positions at a time; the mean of all layers' KL."""
    n_layers = len(lens.bias)
    streams = [cache["resid_pre", layer].flatten(0, 1) for layer in range(n_layers)]
    final = cache["resid_post", n_layers - 1].flatten(0, 1)
    total = 0.0
    for start in range(0, len(final), chunk_size):
        chunk = slice(start, start + chunk_size)
        goal = readout.logits(readout.normed(final[chunk])).float().log_softmax(-1)
        for layer, stream in enumerate(streams):
            logits = readout.logits(readout.normed(lens(stream[chunk].float(), layer)))
            kl = torch.nn.functional.kl_div(logits.log_softmax(-1), goal, reduction="sum", log_target=True)
            (kl / len(final)).backward()
            total += kl.item()
    return total / len(final) / n_layers
