"""How to train."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transformer_lens.errors import ConfigurationError

OPTIMIZERS = ("Adam", "AdamW", "SGD")


@dataclass
class TrainConfig:
    """How a model is trained.

    Attributes:
        num_epochs: passes over the dataset.
        batch_size: rows in a step.
        lr: the learning rate, reached after warmup_steps and then kept.
        seed: of the order of the rows.
        momentum: of SGD.
        max_grad_norm: gradients are scaled down to this norm, over all parameters together; None: they are not.
        weight_decay: of AdamW and SGD; with "Adam" it is decoupled, as AdamW has it. None: 0.
        optimizer_name: "Adam", "AdamW" or "SGD".
        device: move the model there first; None: train it where it is.
        warmup_steps: the learning rate grows evenly over these steps.
        save_every: write the weights after every so many steps, and at the end.
        save_dir: where to: step_100.safetensors and so on.
        wandb: log the loss to Weights & Biases, which must be installed.
        wandb_project_name: the project there.
        print_every: print the loss after every so many steps; None: only show it in the progress bar.
        max_steps: stop after so many steps, if the epochs have not ended; None: don't.

    Raises:
        ConfigurationError: a number out of its range, another optimizer, or a setting without effect.

    Example:
        >>> TrainConfig(num_epochs=1, batch_size=8, optimizer_name="SGD", momentum=0.9).lr
        0.001
    """

    num_epochs: int
    batch_size: int
    lr: float = 1e-3
    seed: int = 0
    momentum: float = 0.0
    max_grad_norm: float | None = None
    weight_decay: float | None = None
    optimizer_name: str = "Adam"
    device: str | torch.device | None = None
    warmup_steps: int = 0
    save_every: int | None = None
    save_dir: str | None = None
    wandb: bool = False
    wandb_project_name: str | None = None
    print_every: int | None = 50
    max_steps: int | None = None

    def __post_init__(self) -> None:
        if self.optimizer_name not in OPTIMIZERS:
            raise ConfigurationError(f"optimizer_name is {self.optimizer_name!r}; known: {', '.join(OPTIMIZERS)}.")
        for name in ("num_epochs", "batch_size", "lr", "max_grad_norm", "save_every", "print_every", "max_steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} is {value}; it is above 0.")
        idle = {
            f"momentum={self.momentum} with {self.optimizer_name}": self.momentum and self.optimizer_name != "SGD",
            "save_every without save_dir": self.save_every is not None and self.save_dir is None,
            "save_dir without save_every": self.save_dir is not None and self.save_every is None,
            "wandb_project_name without wandb=True": self.wandb_project_name is not None and not self.wandb,
        }
        if found := [setting for setting, has_no_effect in idle.items() if has_no_effect]:
            raise ConfigurationError(f"A setting without effect: {', '.join(found)}.")


HookedTransformerTrainConfig = TrainConfig
