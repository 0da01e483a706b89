"""Finds the page that `--ui` mounts: by the entry point group `cllm.mounts`, so that no package is imported by name."""

from importlib.metadata import entry_points

from starlette.types import ASGIApp

from serve.settings import Settings

GROUP = "cllm.mounts"
PAGE = "ui"


def page(settings: Settings) -> ASGIApp:
    """Return the page for the server that is about to listen, as an ASGI application.

    Raises:
        ValueError: It is not installed, or refuses its own settings.
    """
    found = entry_points(group=GROUP, name=PAGE)
    try:
        factory = found[PAGE].load()
    except (KeyError, ImportError) as error:
        raise ValueError(
            f"ui: the page is not installed ({error}); its packages are those of the extra `ui`"
        ) from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    app: ASGIApp = factory(f"http://{host}:{settings.port}/v1")
    return app
