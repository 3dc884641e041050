"""Arrays in, pictures out: heat maps, attention, coloured text and plots, as interactive HTML or as PNG.

Nothing here knows a model: each function takes torch tensors or numpy arrays and labels, and returns a `Picture`.
HTML needs nothing but this package; PNG needs matplotlib (``pip install "transformer-lens[viz]"``).
"""

from transformer_lens.viz.attention import attention_heads, attention_text
from transformer_lens.viz.figure import MissingMatplotlibError
from transformer_lens.viz.graphs import graph
from transformer_lens.viz.heat_maps import head_grid, heat_map
from transformer_lens.viz.pages import page
from transformer_lens.viz.picture import Picture
from transformer_lens.viz.plots import eigenvalue_scatter, line_plot
from transformer_lens.viz.text import coloured_tokens, logit_lens_table
from transformer_lens.viz.tokens import visible_token

__all__ = [
    "MissingMatplotlibError",
    "Picture",
    "attention_heads",
    "attention_text",
    "coloured_tokens",
    "eigenvalue_scatter",
    "graph",
    "head_grid",
    "heat_map",
    "line_plot",
    "logit_lens_table",
    "page",
    "visible_token",
]
