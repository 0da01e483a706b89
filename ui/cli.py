"""`cllm ui`: serve the comparison page for a running server.

Thin: reads options, checks the port, hands over. Gradio is imported only after that, so `--help` is instant.
"""

import logging
import socket
from pathlib import Path
from typing import Annotated

import typer

from ui.servers import is_loopback
from ui.settings import (
    ALLOW_URL_VARIABLE,
    MAX_TOKENS_VARIABLE,
    PASSWORD_VARIABLE,
    SKILLS_VARIABLE,
    TEMPERATURE_VARIABLE,
    VOTES_VARIABLE,
    Settings,
)

_DEFAULT = Settings(api_key="", password=None)


def ui(
    api_url: Annotated[
        str, typer.Option(envvar="CLLM_API_URL", help="OpenAI-compatible address of the server, with /v1.")
    ] = _DEFAULT.api_url,
    port: Annotated[
        int, typer.Option(envvar="CLLM_UI_PORT", min=1, max=65535, help="Port of the page.")
    ] = _DEFAULT.port,
    host: Annotated[str, typer.Option(envvar="CLLM_UI_HOST", help="Address that the page listens on.")] = _DEFAULT.host,
    temperature: Annotated[
        float, typer.Option(envvar=TEMPERATURE_VARIABLE, help="Temperature that the page begins with, 0 to 2.")
    ] = _DEFAULT.temperature,
    max_tokens: Annotated[
        int, typer.Option(envvar=MAX_TOKENS_VARIABLE, help="Longest answer that the page begins with, in tokens.")
    ] = _DEFAULT.max_tokens,
    allow_url: Annotated[
        list[str] | None,
        typer.Option(
            envvar=ALLOW_URL_VARIABLE,
            help="Another server that a side may ask; may be given several times. Without it, a page on the loopback "
            "may ask any, and other pages none.",
        ),
    ] = None,
    skills: Annotated[
        Path | None,
        typer.Option(
            envvar=SKILLS_VARIABLE,
            help="JSONL of held-out prompts (skill, prompt, expected; kind: original or new; label) in place of the "
            "report's.",
        ),
    ] = None,
    votes: Annotated[
        Path | None,
        typer.Option(envvar=VOTES_VARIABLE, help="Offer votes, and append them with prompt and answers to this file."),
    ] = None,
) -> None:
    """Compare models side by side in a browser.

    The server's key comes from CLLM_API_KEY, a password for the page from CLLM_UI_PASSWORD.
    """
    for chatty in ("httpx", "httpx2"):  # one line per request, and the page asks often
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        settings = Settings(api_url, host, port, temperature, max_tokens, tuple(allow_url or ()), skills, votes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if problem := port_problem(host, port, "--port"):
        typer.echo(problem, err=True)
        raise typer.Exit(2)
    if not is_loopback(host) and settings.password is None:
        typer.echo(
            f"Whoever reaches {host} can use this page and its key; {PASSWORD_VARIABLE} sets a password.", err=True
        )

    from ui.app import serve

    typer.echo(f"The page is at http://{host}:{port} and asks {settings.api_url} (Ctrl-C ends it).")
    serve(settings)


def port_problem(host: str, port: int, option: str) -> str | None:
    """Why `host:port` cannot be listened on, naming the option to change."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or error
            return f"Port {port} on {host} cannot be used ({reason}): choose another with {option}."
    return None
