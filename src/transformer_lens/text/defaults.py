"""The value that stands for "as the model is configured" in calls that take a per-call setting."""

from typing import Final

# NOTE: published code compares this name with None and passes either, so the two are one value.
USE_DEFAULT_VALUE: Final = None
