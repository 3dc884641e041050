"""The commands, and how their errors look."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from transformer_lens import __version__, viz
from transformer_lens.cli.patch import What, patch
from transformer_lens.cli.prompt import Prompt
from transformer_lens.cli.report import Forms, deliver
from transformer_lens.cli.tour import tour
from transformer_lens.errors import TransformerLensError
from transformer_lens.specs.listing import rows

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


@app.command("models")
def models_command(
    word: Annotated[str, typer.Argument(help="Show families whose name, type or models contain this.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Which families of models load, under which names, and what works on each."""
    found = rows(word)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in found], indent=1))
        return
    if not found:
        raise ValueError(f"No family, model type or official name contains {word!r}; try it without a word.")
    table = Table("family", "HF type", "norms", "positions", "MLP", "saves", "official names")
    for row in found:
        names = ", ".join(row.names[:4]) + (f", … ({len(row.names)})" if len(row.names) > 4 else "")
        table.add_row(
            *(row.family, ", ".join(row.model_types), row.norms, row.positions, row.mlp),
            *("yes" if row.saves else "no", names),
        )
    console.print(table)


@app.command("patch")
def patch_command(
    model: Annotated[str, typer.Argument(help="A model by name, or a local folder.")],
    clean: Annotated[str, typer.Option(help="The prompt whose activations are put in.")],
    corrupted: Annotated[str, typer.Option(help="The prompt they are put into, of as many tokens.")],
    answer: Annotated[str, typer.Option(help="What the clean prompt is continued by; one token.")],
    wrong: Annotated[str, typer.Option(help="What the corrupted prompt is continued by; one token.")],
    what: Annotated[What, typer.Option(help="What is patched.")] = What.RESID_PRE,
    bridge: Annotated[bool, typer.Option("--bridge", help="Run transformers' own model.")] = False,
    literal: Annotated[bool, typer.Option("--literal", help="Put no space before the answers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where the JSON goes.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with an interactive picture.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the picture; needs matplotlib.")] = None,
) -> None:
    """Where an answer travels: activations of one prompt put into another's run, at every layer and place."""
    forms = Forms(as_json, out, html)
    if png is not None and png.suffix.lower() != ".png":
        raise ValueError(f"--png writes a picture: {png.name} must end in .png.")
    prompt = Prompt.read(model, clean, bridge=bridge)
    tokens = [prompt.answer(text, literal=literal) for text in (answer, wrong)]
    report = patch(prompt, corrupted, tokens[0], tokens[1], what=what)
    deliver(report, forms, console)
    for picture in report.parts:
        if png is not None and isinstance(picture, viz.Picture):
            picture.save(png)
            Console(stderr=True, highlight=False).print(f"Written: {png}", soft_wrap=True, markup=False)


def main() -> None:
    """Run the command line; what a person did wrong is said plainly, with exit code 2."""
    try:
        app()
    except (TransformerLensError, ValueError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"[bold red]Error:[/] {error}", soft_wrap=True)
        sys.exit(2)
