"""The root command. Each package registers its subcommands in the entry point group `cllm.commands`.

A subcommand is a function with typer annotations; only the one that is called gets imported, so that `cllm ui` works
without torch. Exit codes: 0 done, 2 bad input (a `ValueError` from the subcommand, shown as its message), 1 failure.
"""

import logging
import sys
from importlib.metadata import EntryPoint, entry_points

import typer

GROUP = "cllm.commands"
BAD_INPUT = 2


def main(args: list[str] | None = None) -> None:
    """Run the subcommand that the command line names."""
    args = sys.argv[1:] if args is None else args
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    commands = {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}
    if args and args[0] in commands:
        wanted = {args[0]: commands[args[0]]}  # the others stay unimported
    else:
        wanted = commands
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Control LLM: expand, train, serve, compare.",
    )
    app.callback()(lambda: None)
    for name, entry in wanted.items():
        _add(app, name, entry)
    try:
        app(args, prog_name="cllm")
    except ValueError as error:
        typer.echo(f"cllm: {error}", err=True)
        sys.exit(BAD_INPUT)


def _add(app: typer.Typer, name: str, entry: EntryPoint) -> None:
    function = entry.load()
    app.command(name, context_settings=getattr(function, "context_settings", None))(function)


if __name__ == "__main__":
    main()
