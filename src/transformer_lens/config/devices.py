"""Where models live by default."""

import os

import torch


def default_device() -> str:
    """The device a model goes to when nobody says: "cuda" if there is one, "mps" if allowed, else "cpu".

    Apple's MPS backend has given wrong numbers silently, so it is used only with TRANSFORMERLENS_ALLOW_MPS=1.
    """
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available() and os.environ.get("TRANSFORMERLENS_ALLOW_MPS") == "1":
        return "mps"
    return "cpu"
