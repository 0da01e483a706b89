"""Subcommand `cllm report`. Heavy imports wait for the call; torch is not among them."""

from pathlib import Path
from typing import Annotated

import typer

_RUN = "Directory of a run, or its report.json."


def report(
    a: Annotated[Path, typer.Argument(help=_RUN, metavar="A", show_default=False)],
    b: Annotated[Path | None, typer.Argument(help=f"{_RUN} To compare with A.", metavar="[B]")] = None,
    output: Annotated[Path | None, typer.Option(help="HTML file to write.", dir_okay=False, show_default=False)] = None,
) -> None:
    """Show what a training run did and what came of it, or lay two runs side by side."""
    from training.report.file import read
    from training.report.page import write_html
    from training.report.summary import changed, facts, rows
    from training.table import show

    if output is not None and not output.parent.is_dir():
        raise ValueError(f"output: {str(output)!r}: there is no directory {str(output.parent)!r}")
    reports = [read(path) for path in (a, b) if path is not None]
    names = [str(found.recipe.get("name", "run")) for found in reports]
    if len(set(names)) < len(names):
        names = ["A", "B"]
    named = list(zip(names, reports, strict=True))
    for name, found in named:
        typer.echo(f"{name}: " + "\n  ".join(facts(found)))
    show(*rows(named))
    if len(named) == 2:
        show(*changed(named))
    if output is not None:
        write_html(named, output)
        typer.echo(output)
