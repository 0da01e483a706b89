"""Subcommands on checkpoints: `cllm expand`, `cllm extract`, `cllm inspect`. Heavy imports wait for the call."""

import json
from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Argument(help="Directory to write; must not exist.", show_default=False)]
Model = Annotated[Path, typer.Argument(help="Directory of a dual-branch checkpoint.", show_default=False)]


def expand(
    base: Annotated[Path, typer.Argument(help="Directory of a plain checkpoint.", show_default=False)],
    out: Out,
    layers: Annotated[int, typer.Option(help="Number of layers that get a second branch, evenly spaced.")],
    method: Annotated[str, typer.Option(help="Merge method: lerp or dlerp.")],
    factor: Annotated[float, typer.Option(help="Initial logit of the interpolation weight; 0 is one half.")] = 0.0,
) -> None:
    """Give layers of a base checkpoint a second, trainable branch."""
    from cllm_model.expand import expand as expand_checkpoint
    from cllm_model.fresh import difference_to_base

    config = expand_checkpoint(base, out, layers, method, factor)
    typer.echo(f"{out}: layers {', '.join(map(str, config.dual.expanded_layers))} have two branches ({method})")
    typer.echo(f"largest difference to the base in logits of random tokens: {difference_to_base(out):.3g}")


def extract(model: Model, out: Out) -> None:
    """Write the base branch of a dual-branch checkpoint as a plain checkpoint."""
    from cllm_model.expand import extract as extract_checkpoint

    config = extract_checkpoint(model, out)
    typer.echo(f"{out}: {config.model_type}, {config.num_hidden_layers} layers")


def inspect(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a dual-branch checkpoint holds."""
    from cllm_model.inspect import inspect as inspect_checkpoint

    facts = inspect_checkpoint(model)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = (
            f"{value:,}" if isinstance(value, int) else ", ".join(map(str, value)) if isinstance(value, list) else value
        )
        typer.echo(f"{name.replace('_', ' '):<25}{shown}")
