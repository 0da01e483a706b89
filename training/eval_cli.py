"""Subcommand `cllm eval`. Heavy imports wait for the call."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[
        str, typer.Argument(help="Checkpoint directory, or address of a `cllm serve`.", metavar="MODEL|URL")
    ],
    suite: Annotated[
        str,
        typer.Option(
            help="JSONL files (conversations or prompt and completion: exact match; texts: perplexity) or "
            "lm-eval:TASK, separated by commas.",
            show_default=False,
        ),
    ],
    scales: Annotated[
        str | None,
        typer.Option(
            help="Control scales, separated by commas; by default 0,0.25,0.5,0.75,1, or 1 for a plain checkpoint.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results.", dir_okay=False, show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most questions or texts of each suite.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Sequences at once, or requests at once to a server.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    window: Annotated[
        int | None, typer.Option(min=2, help="Most tokens of a text that perplexity looks at together.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="The served model's tokenizer, for lm-eval tasks on a server."),
    ] = None,
) -> None:
    """Measure a model at every strength of the dial, with 95 % confidence intervals.

    Intervals: Wilson's for shares; for perplexity, a bootstrap over texts with a fixed seed; for lm-eval tasks, by the
    harness's own standard error. A guarded server's key is read from CLLM_API_KEY.
    """
    from training.evaluation.command import rows, run
    from training.recipe import Evaluation
    from training.table import show

    try:
        wanted = None if scales is None else [float(scale) for scale in scales.split(",")]
    except ValueError as error:
        raise ValueError(f"scales: {scales!r}: expected numbers separated by commas") from error
    given = {"batch_size": batch_size, "max_new_tokens": max_new_tokens, "window": window}
    settings = Evaluation.model_validate({name: value for name, value in given.items() if value is not None})
    results = run(model, suite.split(","), wanted, output, limit, tokenizer, settings)
    show(*rows(results))
    if output is not None:
        typer.echo(output)
