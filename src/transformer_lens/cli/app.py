"""The commands, and how their errors look."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from transformer_lens import __version__
from transformer_lens.cli.tour import tour
from transformer_lens.errors import TransformerLensError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)


@app.callback(help="Read, change and explain every activation of a transformer language model.")
def _callback() -> None:
    """Hold the commands together, also while there is only one."""


@app.command("version")
def version_command() -> None:
    """Print the version."""
    console.print(__version__)


@app.command("tour")
def tour_command(
    model: Annotated[str, typer.Option(help="A model by name, or a local folder.")] = "demo",
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("tour"),
) -> None:
    """From a prompt to a found circuit, with pictures."""
    tour(model, out, console)


def main() -> None:
    """Run the command line; what a person did wrong is said plainly, with exit code 2."""
    try:
        app()
    except (TransformerLensError, ValueError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"[bold red]Error:[/] {error}", soft_wrap=True)
        sys.exit(2)
