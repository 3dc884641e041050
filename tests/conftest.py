"""Settings of every test: one thread each, shapes and types of annotations checked while the tests run."""

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# NOTE: in force for modules imported from here on; processes that tests start import the library as users do.
PARTS = (
    "hooks",
    "config",
    "native",
    "cache",
    "generation",
    "models",
    "text",
    "weights",
    "evals",
    "training",
    "steering",
    "lenses",
    "probing",
)
install_import_hook([f"transformer_lens.{part}" for part in PARTS], "annotations.checked")
