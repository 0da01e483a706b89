"""Subcommands on checkpoints: `cllm expand`, `extract`, `merge`, `convert`, `inspect`. Imports wait for the call."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Argument(help="Directory to write; must not exist.", show_default=False)]
Model = Annotated[Path, typer.Argument(help="Directory of an expanded checkpoint.", show_default=False)]
Family = Annotated[
    str | None,
    typer.Option(help="Base family, where config.json does not tell it.", show_default=False),
]


def expand(
    base: Annotated[Path, typer.Argument(help="Directory of a plain checkpoint.", show_default=False)],
    out: Out,
    method: Annotated[str, typer.Option(help="Merge method: lerp, slerp, dlerp, dlerpin, moe, proj or prog.")],
    layers: Annotated[
        int | None, typer.Option(help="Number of layers of the base to copy, evenly spaced.", show_default=False)
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Layers of the base to copy, as in 1,3; instead of --layers.", show_default=False)
    ] = None,
    expansion: Annotated[
        str, typer.Option(help="concat: a second branch; stack: a layer behind; hybrid: both in turn.")
    ] = "concat",
    family: Family = None,
    factor: Annotated[
        str, typer.Option(help="Initial logit of the interpolation weight; 0 is one half. null: no factor (lerp).")
    ] = "0",
    freeze_factor: Annotated[bool, typer.Option("--freeze-factor", help="Keep the factor from training.")] = False,
    norm_alpha: Annotated[
        float, typer.Option(help="Relaxed norm: share of the input that passes, 0 to 1; -1 for a learned one.")
    ] = 0.0,
) -> None:
    """Give layers of a base checkpoint a second, trainable branch, or a trainable layer behind them."""
    from cllm_model.expand import expand as expand_checkpoint
    from cllm_model.fresh import difference_to_base

    config = expand_checkpoint(
        base, out, _sites(layers, at), method, _number_or_null(factor), expansion, freeze_factor, norm_alpha, family
    )
    dual = config.dual
    if dual.expanded_layers:
        typer.echo(f"{out}: layers {', '.join(map(str, dual.expanded_layers))} have two branches ({method})")
    if dual.stacked_layers:
        typer.echo(f"{out}: layers {', '.join(map(str, dual.stacked_layers))} are stacked behind their source")
    typer.echo(f"largest difference to the base in logits of random tokens: {difference_to_base(out):.3g}")
    if norm_alpha != 0:
        typer.echo("a difference is expected: the relaxed norm lets a share of its input through from the start")


def _sites(layers: int | None, at: str | None) -> int | list[int]:
    if layers is not None and at is None:
        return layers
    if layers is not None or at is None:
        raise ValueError("layers: give exactly one of --layers N and --at 1,3")
    try:
        return [int(layer) for layer in at.split(",")]
    except ValueError as error:
        raise ValueError(f"at: {at!r} is not a list of layers, as in 1,3") from error


def _number_or_null(value: str) -> float | None:
    try:
        number = None if value == "null" else float(value)
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise ValueError(f"factor: {value!r} is neither a finite number nor null")
    return number


def extract(model: Model, out: Out, family: Family = None) -> None:
    """Write the base branch of an expanded checkpoint as a plain checkpoint."""
    from cllm_model.expand import extract as extract_checkpoint

    config = extract_checkpoint(model, out, family)
    typer.echo(f"{out}: {config.model_type}, {config.num_hidden_layers} layers")


def merge(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL [OTHER] OUT",
            help="An expanded checkpoint, or two of one expansion and base; and the directory to write.",
            show_default=False,
        ),
    ],
    weights_from: Annotated[
        Path | None,
        typer.Option(help="Measured mean weights: a report.json or evaluation_results.json.", show_default=False),
    ] = None,
    keep_branches: Annotated[
        bool, typer.Option("--keep-branches", help="Two checkpoints: write an expanded checkpoint, not a plain one.")
    ] = False,
    family: Family = None,
) -> None:
    """Fold the branches of an expanded checkpoint, or of two, back into a plain checkpoint of the base family."""
    from cllm_model.merge import merge as merge_checkpoint
    from cllm_model.merge import scores
    from cllm_model.merge_two import merge_two

    *models, out = paths
    if len(models) == 1:
        if keep_branches:
            raise ValueError("keep_branches: only two checkpoints can be merged so; give MODEL OTHER OUT")
        merged = merge_checkpoint(models[0], out, weights_from, family)
    elif len(models) == 2:
        if weights_from is not None:
            raise ValueError("weights_from: not allowed with two checkpoints, whose factors are used")
        merged = merge_two(models[0], models[1], out, keep_branches, family)
    else:
        raise ValueError(f"give MODEL OUT or MODEL OTHER OUT, not {len(paths)} paths")
    typer.echo(f"{out}: {merged.config.model_type}, {merged.config.num_hidden_layers} layers")
    for layer, weight in sorted(merged.weights.items()):
        typer.echo(
            f"layer {layer}: weight {weight:.4f} ({'measured' if layer in merged.measured else 'of its factor'})"
        )
    for loss in merged.lost:
        typer.echo(f"lost: {loss}")
    for model in models:
        if lines := scores(model):
            typer.echo(f"measured on {model} before this merge; the merged checkpoint has not been measured:")
            for line in lines:
                typer.echo(f"  {line}")


def convert(
    model: Model,
    out: Out,
    format: Annotated[str, typer.Option(help="control-llm or published.")],
    family: Family = None,
) -> None:
    """Write an expanded checkpoint in our format, or in that of the paper's authors."""
    from cllm_model.convert import convert as convert_checkpoint

    config = convert_checkpoint(model, out, format, family)
    typer.echo(f"{out}: {config.model_type}, {config.num_hidden_layers} layers")


def inspect(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    family: Family = None,
) -> None:
    """Show what an expanded checkpoint holds."""
    from cllm_model.inspect import inspect as inspect_checkpoint

    facts = inspect_checkpoint(model, family)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):<25}{_shown(value)}")


def _shown(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case list():
            return ", ".join(map(str, value)) or "none"
        case dict():
            known = {key: "unknown" if entry is None else f"{entry:.4f}" for key, entry in value.items()}
            return ", ".join(f"{key}: {entry}" for key, entry in known.items()) or "none"
    return str(value)
