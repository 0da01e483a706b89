"""Starts vLLM's OpenAI server in this process, with our engine client and our routes, and waits for its end.

The parts are vLLM's own: `build_async_engine_client` and `build_and_serve`. What is ours is wrapped around the engine
client (`serve.app.engine`) and added to the routes (`serve.app.plugin`). Imports vllm when called.
"""

import os
import signal
from argparse import Namespace
from importlib.metadata import distributions

from serve.service import Service
from serve.settings import Settings

_ALLOW_LIST = "VLLM_PLUGINS"
_OURS = ("control_llm", "control_llm_server")
_CLOSING_S = 2  # for connections, once nothing generates any more
_ENDPOINT_GROUP = "vllm.endpoint_plugins"


class EngineDied(RuntimeError):
    """The engine ended although nobody asked it to."""


def end_on_signals() -> None:
    """Let SIGINT and SIGTERM end the process with code 0 from here on; a running server has handlers of its own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def _end(*_: object) -> None:
    raise SystemExit(0)


def prepare(settings: Settings, options: list[str]) -> Namespace:
    """Return vLLM's arguments, after every check that vLLM can do without starting an engine.

    Args:
        settings: What our own options say.
        options: vLLM's options, as on a command line.

    Raises:
        ValueError: An option is refused.
        SystemExit: vLLM's parser refuses the command line; the code is 2.
    """
    allow_plugins()
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM would tell its makers about this machine
    os.environ.setdefault("VLLM_REGEX_COMPILATION_TIMEOUT_S", "1")  # no other request is answered meanwhile
    os.environ.setdefault("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "75")  # vLLM's 5 s close connections that clients still use
    os.environ["VLLM_MAX_STOP_STRINGS"] = str(settings.max_stops)
    os.environ["VLLM_MAX_COMPLETION_PROMPTS"] = str(settings.max_prompts)
    from cllm_model.vllm import register
    from serve.allocation import check_parallel_size
    from serve.options import check_engine, parse

    register()
    args = parse(settings, options)
    check_parallel_size(settings.model, args.tensor_parallel_size)
    check_engine(args)
    return args


def allow_plugins() -> None:
    """Add our plugins to vLLM's allow-list, which endpoint plugins need, and keep out none that would be loaded."""
    allowed = os.environ.get(_ALLOW_LIST)
    if allowed is None:
        plugins = [plugin for distribution in distributions() for plugin in distribution.entry_points]
        others = {plugin.name for plugin in plugins if _loaded_unasked(plugin.group)}
    else:
        others = set(allowed.split(","))
    os.environ[_ALLOW_LIST] = ",".join(sorted(others | set(_OURS)))


def _loaded_unasked(group: str) -> bool:
    return group.startswith("vllm.") and group != _ENDPOINT_GROUP


def run_workers(args: Namespace) -> None:
    """Run this machine's workers of an engine that spans several, until SIGINT or SIGTERM; another one serves.

    Raises:
        EngineDied: The workers ended by themselves.
    """
    from vllm.entrypoints.cli.serve import run_headless

    args.api_server_count = 0  # as vLLM's own command says of a process without API
    run_headless(args)
    raise EngineDied("the workers ended by themselves; their log says why")


def run(service: Service, args: Namespace) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        EngineDied: The engine ended by itself.
    """
    import uvloop

    args.service = service  # vLLM hands its arguments to plugins
    uvloop.run(_serve(service, args))


async def _serve(service: Service, args: Namespace) -> None:
    from vllm.entrypoints.launchers.api_server.entry import build_and_serve, build_async_engine_client
    from vllm.entrypoints.launchers.launcher import setup_server

    from serve.app.access_log import log_to_stdout
    from serve.app.engine import ControlEngine

    log_to_stdout()
    address, sock = setup_server(args, reuse_port=False)
    try:
        async with build_async_engine_client(args) as engine:
            client = ControlEngine(engine, service.settings, service.checkpoint)
            closing = await build_and_serve(
                client,  # type: ignore[arg-type]
                address,
                sock,
                args,
                timeout_graceful_shutdown=_CLOSING_S,
                http="h11",  # uvicorn would take httptools, which keeps headers of any size; vLLM's limit is h11's
            )
        await closing
    finally:
        sock.close()
    if not client.was_shut_down:
        raise EngineDied("the engine ended by itself; its log says why")
