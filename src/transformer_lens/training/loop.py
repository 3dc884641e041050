"""The training loop: next-token loss, one optimizer, one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from transformer_lens.extras import import_extra
from transformer_lens.training.config import TrainConfig

Model = TypeVar("Model", bound=Any)


def train(model: Model, config: TrainConfig, dataset: Any) -> Model:
    """The model, trained in place to predict the next tokens of the dataset's rows.

    Shows a progress bar with the loss. The order of the rows depends on config.seed alone; torch's global generator is
    not touched. The model is in training mode meanwhile, and afterwards in the mode it came in.

    Args:
        model: either host.
        config: how.
        dataset: a dataset or list of items {"tokens": [pos]}, all of one length, with "attention_mask" beside it where
            rows are padded.

    Raises:
        ValueError: an item has no "tokens".
        MissingExtraError: config.wandb, and wandb is not installed.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> from transformer_lens.text.packing import TokenRows
        >>> model = HookedTransformer({"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20})
        >>> rows = TokenRows(torch.arange(12).expand(8, -1))
        >>> config = TrainConfig(num_epochs=5, batch_size=4, lr=1e-2, print_every=None)
        >>> before = model(rows.tokens, return_type="loss").item()
        >>> train(model, config, rows)(rows.tokens, return_type="loss").item() < before
        True
    """
    log = _log(config)
    if config.device is not None:
        model.to(config.device)
    optimizer = _optimizer(model, config)
    schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, config.warmup_steps)))
    order = torch.Generator().manual_seed(config.seed)
    loader = DataLoader(dataset, batch_size=config.batch_size, shuffle=True, generator=order)
    steps = len(loader) * config.num_epochs
    total = min(steps, config.max_steps or steps)
    was_training = model.training
    model.train()
    try:
        with tqdm(islice(_batches(loader, config), total), total=total, desc="training") as bar:
            for step, batch in enumerate(bar, 1):
                loss = _step(model, batch, optimizer, config)
                schedule.step()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                log({"train_loss": loss, "step": step})
                if config.print_every is not None and step % config.print_every == 0:
                    bar.write(f"step {step}: loss {loss:.4f} nats")
                if config.save_every is not None and (step % config.save_every == 0 or step == total):
                    save_weights(model, Path(str(config.save_dir)) / f"step_{step}.safetensors")
    finally:
        model.train(was_training)
    return model


def save_weights(model: Any, path: str | Path) -> Path:
    """The file to which the model's state dict was written, as safetensors; its folder is made.

    `model.load_state_dict(safetensors.torch.load_file(path))` reads it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(torch.nn.Linear(2, 2), f"{folder}/runs/step_1.safetensors").name
        'step_1.safetensors'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # NOTE: safetensors refuses tensors that share memory, as tied weights do; each is written by itself.
    save_file({name: value.detach().cpu().clone() for name, value in model.state_dict().items()}, target)
    return target


def _step(model: Any, batch: Mapping[str, Tensor], optimizer: Optimizer, config: TrainConfig) -> float:
    loss: Float[Tensor, ""] = model(batch["tokens"], return_type="loss", attention_mask=batch.get("attention_mask"))
    optimizer.zero_grad()
    loss.backward()
    if config.max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()
    return loss.item()


def _batches(loader: DataLoader[Any], config: TrainConfig) -> Iterator[Mapping[str, Tensor]]:
    for _ in range(config.num_epochs):
        for batch in loader:
            if not isinstance(batch, Mapping) or "tokens" not in batch:
                found = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
                raise ValueError(f'Items of a training set are dictionaries with "tokens"; these give {found}.')
            yield batch


def _optimizer(model: Any, config: TrainConfig) -> Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay = config.weight_decay or 0.0
    if config.optimizer_name == "SGD":
        return SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=decay)
    if config.optimizer_name == "AdamW" or decay:
        return AdamW(parameters, lr=config.lr, weight_decay=decay)
    return Adam(parameters, lr=config.lr)


def _log(config: TrainConfig) -> Callable[[dict[str, float]], None]:
    """What each step's numbers go to: Weights & Biases where that is asked for, else nowhere."""
    if not config.wandb:
        return lambda numbers: None
    wandb = import_extra("wandb", "wandb=True", "wandb")
    run = wandb.init(project=config.wandb_project_name, config=asdict(config))
    write: Callable[[dict[str, float]], None] = run.log
    return write
