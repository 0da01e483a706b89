"""`cllm serve`: reads the command line, checks the input, starts the server. Heavy imports wait until needed."""

from pathlib import Path
from typing import Annotated

import typer

from serve.settings import Settings


def serve(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(envvar="CLLM_MODEL", help="Checkpoint directory.")],
    name: Annotated[
        str, typer.Option(envvar="CLLM_NAME", help="Model id, without : @ and /.  [default: the directory's name]")
    ] = Settings.name,
    host: Annotated[str, typer.Option(envvar="CLLM_HOST", help="Address to listen on.")] = Settings.host,
    port: Annotated[int, typer.Option(envvar="CLLM_PORT", help="Port to listen on.")] = Settings.port,
    check: Annotated[
        bool, typer.Option("--check", envvar="CLLM_CHECK", help="Check the input, start nothing.")
    ] = False,
) -> None:
    """Serve a Control LLM checkpoint behind OpenAI's API, as NAME and as its base model NAME:base.

    vLLM's engine options may follow MODEL, for example --max-model-len 4096 or --dtype bfloat16.
    """
    from serve import launch, preflight

    launch.end_on_signals()
    try:
        settings = Settings(model, name, host, port)
        checkpoint = preflight.check_all(settings)
        if check and not context.args:
            args = None  # no option of vLLM's to check, so vLLM need not be imported
        else:
            args = launch.prepare(settings, context.args)
    except ValueError as error:
        typer.echo(f"cllm serve: {error}", err=True)
        raise typer.Exit(2) from error
    if check or args is None:
        typer.echo(f"{model}: checkpoint {checkpoint.digest} can be served as {' and '.join(settings.ids.listed)}")
        return
    try:
        launch.run(settings, checkpoint, args)
    except launch.EngineDied as error:
        typer.echo(f"cllm serve: {error}", err=True)
        raise typer.Exit(1) from error


# vLLM's options are not known here; the root command passes this on to typer.
serve.context_settings = {"allow_extra_args": True, "ignore_unknown_options": True}  # type: ignore[attr-defined]
