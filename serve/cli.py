"""`cllm serve`: reads the command line, checks the input, starts the server. Heavy imports wait until needed."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from serve.config_file import ENGINE, read_config_file
from serve.keys import VARIABLE, read_keys
from serve.service import Service
from serve.settings import RECOMMENDED, Settings

_HEADLESS = "--headless"  # vLLM's: this process runs workers for a server on another machine


def _load(context: typer.Context, file: Path | None) -> Path | None:
    """Make the file's values the defaults: below the command line and the environment, above `Settings`."""
    if file is not None:
        try:
            context.default_map = read_config_file(file)
        except ValueError as error:
            typer.echo(f"cllm serve: {error}", err=True)
            raise typer.Exit(2) from error
    return file


def _scale(text: str) -> float | str:
    return text if text == RECOMMENDED else float(text)


def serve(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(envvar="CLLM_MODEL", help="Checkpoint directory.")],
    config: Annotated[
        Path | None,
        typer.Option(
            is_eager=True,
            callback=_load,
            help="YAML or TOML file with these options, named as here with _ for -; vLLM's stand in a table `engine`. "
            "The command line wins over the environment, and that over the file.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Model id, without : @ and /.  [default: the directory's name]")
    ] = Settings.name,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = Settings.host,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = Settings.port,
    default_scale: Annotated[
        str,
        typer.Option(
            parser=_scale,
            metavar=f"NUMBER|{RECOMMENDED}",
            help="Control scale of requests that name none; what the checkpoint's report recommends, if asked for.",
        ),
    ] = str(Settings.default_scale),
    max_scale: Annotated[
        float, typer.Option(help="Largest control scale that a request may ask for.")
    ] = Settings.max_scale,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with API keys, one a line, plain or as sha256:HEX; CLLM_API_KEYS=KEY,KEY holds more.",
        ),
    ] = Settings.api_key_file,
    max_body_bytes: Annotated[int, typer.Option(help="Size of the largest request.")] = Settings.max_body_bytes,
    body_seconds: Annotated[
        float, typer.Option(help="Time that a request's body may take to arrive.")
    ] = Settings.body_seconds,
    max_queue: Annotated[
        int, typer.Option(help="Most generation requests at a time, running and waiting; one may ask for many answers.")
    ] = Settings.max_queue,
    max_n: Annotated[int, typer.Option(help="Most answers to one prompt.")] = Settings.max_n,
    max_prompts: Annotated[
        int, typer.Option(help="Most prompts in one request for completions.")
    ] = Settings.max_prompts,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Most tokens of an answer.  [default: what the context has room for]"),
    ] = Settings.max_tokens,
    max_stops: Annotated[int, typer.Option(help="Most stop strings of a request.")] = Settings.max_stops,
    max_stop_length: Annotated[
        int, typer.Option(help="Characters of the longest stop string.")
    ] = Settings.max_stop_length,
    max_grammar_bytes: Annotated[
        int,
        typer.Option(help="Size of the largest schema or grammar that an answer must keep to."),
    ] = Settings.max_grammar_bytes,
    max_pattern_length: Annotated[
        int, typer.Option(help="Characters of the longest regular expression in one.")
    ] = Settings.max_pattern_length,
    drain_seconds: Annotated[
        float, typer.Option(help="Time that running requests have to end after SIGTERM.")
    ] = Settings.drain_seconds,
    log_prompts: Annotated[
        bool,
        typer.Option("--log-prompts", help="Write the bodies of requests into the access log."),
    ] = Settings.log_prompts,
    ui: Annotated[
        bool,
        typer.Option("--ui", help="Serve the comparison page under /ui; it asks for an API key if the server does."),
    ] = Settings.ui,
    check: Annotated[
        bool, typer.Option("--check", help="Check the input, say what would be allocated, start nothing.")
    ] = False,
) -> None:
    """Serve a Control LLM checkpoint behind OpenAI's API, as NAME, as its base model NAME:base, and as NAME@0.5.

    vLLM's engine options may follow MODEL, for example --max-model-len 4096 or --dtype bfloat16.
    """
    given = locals()
    from serve import launch, mounts, preflight

    launch.end_on_signals()
    options = [*(context.default_map or {}).get(ENGINE, []), *context.args]
    try:
        settings = Settings(**{field.name: given[field.name] for field in fields(Settings)})
        keys = read_keys(os.environ.pop(VARIABLE, None), settings.api_key_file)  # kept from the engine's processes
        listens = _HEADLESS not in options
        if settings.ui and not listens:
            raise ValueError(f"--ui: has no effect with {_HEADLESS}: the machine of rank 0 serves the page")
        checkpoint = preflight.check_all(settings, listens=listens)
        settings = settings.with_report(checkpoint.report)
        page = mounts.page(settings) if settings.ui else None
        if check and not options:
            args = None  # no option of vLLM's to check, so vLLM need not be imported
        else:
            args = launch.prepare(settings, options)
    except ValueError as error:
        typer.echo(f"cllm serve: {error}", err=True)
        raise typer.Exit(2) from error
    if check or args is None:
        typer.echo(f"{model}: checkpoint {checkpoint.digest} can be served as {' and '.join(settings.ids.listed)}")
        from serve.allocation import allocation

        for line in allocation(model, args).lines():
            typer.echo(line)
        return
    try:
        if args.headless:
            launch.run_workers(args)
        else:
            launch.run(Service(settings, checkpoint, keys, page), args)
    except launch.EngineDied as error:
        typer.echo(f"cllm serve: {error}", err=True)
        raise typer.Exit(1) from error


# The root command passes this on to typer. vLLM's options are not known here; every option is also a variable CLLM_….
serve.context_settings = {  # type: ignore[attr-defined]
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "auto_envvar_prefix": "CLLM",
}
