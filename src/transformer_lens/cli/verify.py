"""`transformer-lens verify`: what holds of the bridge over a model."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.table import Table

MARKS = {"holds": "[green]holds[/]", "fails": "[red]fails[/]", "undefined": "[dim]undefined[/]"}


def verify_model(model: str, as_json: bool, console: Console) -> bool:
    """Print the verification of a model; returns whether it passed.

    Args:
        model: a name or a local folder.
        as_json: for programs.
        console: where to print.
    """
    from transformer_lens.models.transformer_bridge import TransformerBridge

    found = TransformerBridge.boot_transformers(model).verify()
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return found.passed
    console.print(f"{found.model}, known by its {found.known_by}: {found.hook_points} hook points")
    table = Table("", "statement", "where not")
    for check in found.checks:
        table.add_row(MARKS[check.outcome], check.statement, check.detail)
    console.print(table)
    for name, why in found.untrusted.items():
        console.print(f"do not trust {name}: {why}")
    return found.passed
