"""Which servers may be asked: addresses in one spelling, and the allow-list of a page that others can reach.

A page that listens on the loopback serves its own user, who may ask any address. Any other page, or one behind a
proxy, would let strangers reach what its machine can reach, so it asks only the addresses that it was told of.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

NO_KEY = "none"  # sent where there is no key; servers that guard nothing ignore it


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server and the key to send it; the key is in no log and no `repr`."""

    url: str
    key: str = field(default=NO_KEY, repr=False)

    @property
    def root(self) -> str:
        """The address without its `/v1`, under which `/ready` lies."""
        return self.url.removesuffix("/v1")

    @property
    def place(self) -> str:
        """Host and port, to name the server by."""
        return urlsplit(self.url).netloc


def clean_url(url: str, name: str = "address") -> str:
    """Return an address in its one spelling; `/v1` is added where it has no path.

    Raises:
        ValueError: No request can be sent to it, or it holds what belongs elsewhere.
    """
    text = url.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{name} {text!r} is not an http:// or https:// address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise ValueError(f"{name} {text!r} is not an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError(f"{name} must not hold a user name or a password: the key has a place of its own")
    if parts.query or parts.fragment:
        raise ValueError(f"{name} must end with its path, without ? and #")
    if ".." in parts.path.split("/") or "%" in parts.path or "\\" in text:
        raise ValueError(f"{name} {text!r} must have a plain path")
    default_port = {"http": 80, "https": 443}[parts.scheme]
    location = f"[{host}]" if ":" in host else host
    location += f":{port}" if port not in (None, default_port) else ""
    return f"{parts.scheme}://{location}{parts.path.rstrip('/') or '/v1'}"


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can reach an address by this host."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


class AllowList:
    """The addresses that a reader of the page may name.

    Args:
        urls: Addresses that are allowed, as `clean_url` gives them.
        everything: Allow any address: the page is reachable from its own machine only.
    """

    def __init__(self, urls: Iterable[str], everything: bool) -> None:
        self.urls = tuple(dict.fromkeys(urls))
        self.everything = everything

    def check(self, url: str) -> str:
        """Return the address, cleaned.

        Raises:
            ValueError: It is no address, or not one of those allowed.
        """
        cleaned = clean_url(url)
        if not self.everything and cleaned not in self.urls:
            raise ValueError(f"address {cleaned!r} is not allowed on this page; allowed: {', '.join(self.urls)}")
        return cleaned
