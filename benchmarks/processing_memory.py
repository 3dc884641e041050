"""Peak anonymous memory of processing a model in place, and of loading a state dict with processing.

`python -m benchmarks.processing_memory`. Each measurement is a fresh process; the model's own size is 1.
"""

import subprocess
import sys
import warnings

import torch

from benchmarks.loading import Peak
from transformer_lens import HookedTransformer, HookedTransformerConfig

WAYS = ("process_weights_", "load_and_process_state_dict")


def model(width: int, norm: str) -> HookedTransformer:
    """A random model of some 420 MB at width 1024."""
    cfg = HookedTransformerConfig(
        d_model=width, d_head=64, n_layers=6, n_ctx=128, d_vocab=16 * width, d_mlp=4 * width, act_fn="gelu",
        normalization_type=norm, init_weights=False, device="cpu",
    )  # fmt: skip
    made = HookedTransformer(cfg)
    for parameter in made.parameters():
        parameter.data.uniform_(-0.02, 0.02)
    return made


def measure(way: str, norm: str) -> None:
    """In a process of its own: print the peak above what was there, over the model's size."""
    warnings.simplefilter("ignore")  # RMS norms refuse centring
    model(128, norm).process_weights_()
    big = model(1024, norm)
    size = sum(parameter.numel() * parameter.element_size() for parameter in big.parameters())
    given = {} if way == "process_weights_" else {name: value.clone() for name, value in big.state_dict().items()}
    torch.set_grad_enabled(False)
    with Peak() as peak:
        if given:
            big.load_and_process_state_dict(given)
        else:
            big.process_weights_()
    print(
        f"{way:28} {norm:4} model 1.00, given {1.0 if given else 0.0:.2f}, more at the peak {peak.highest / size:.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3])
    else:
        for way in WAYS:
            for norm in ("LN", "RMS"):
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.processing_memory", "--measure", way, norm], check=True
                )
