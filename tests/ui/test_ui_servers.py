"""Addresses: one spelling for each, and none that leads where the page may not go."""

from pathlib import Path

import pytest

from ui.servers import AllowList, Server, clean_url, is_loopback
from ui.settings import Settings, mounted_settings


@pytest.mark.parametrize(
    ("url", "cleaned"),
    [
        ("http://h:1", "http://h:1/v1"),
        (" HTTP://Host:1/v1/ ", "http://host:1/v1"),
        ("https://h:443/proxy/v1", "https://h/proxy/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_has_one_spelling(url: str, cleaned: str) -> None:
    assert clean_url(url) == cleaned == clean_url(cleaned)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://host/v1",
        "file:///etc/passwd",
        "http://",
        "http://user:pw@host/v1",
        "http://allowed@evil/v1",
        "http://host/v1?x=http://evil",
        "http://host/v1#x",
        "http://host/a/../b",
        "http://host/%2e%2e/b",
        "http://host\\@evil/v1",
        "http://host:port/v1",
        "http://ho st/v1",
        "http://host/v1\r\nX: y",
    ],
)
def test_an_address_that_cannot_or_must_not_be_asked_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        clean_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://allowed.example.evil.com/v1",
        "http://allowed.example/v1/other",
        "http://allowed.example:81/v1",
        "https://allowed.example/v1",
        "http://127.0.0.1:9/v1",
        "http://[::ffff:169.254.169.254]/v1",
    ],
)
def test_a_page_that_others_reach_asks_only_what_it_was_told_of(url: str) -> None:
    settings = Settings(host="0.0.0.0", api_url="http://127.0.0.1:8000", allow_urls=("http://allowed.example",))
    assert settings.allow_list.check("http://allowed.example/v1/") == "http://allowed.example/v1"
    assert settings.allow_list.check("http://127.0.0.1:8000/v1") == "http://127.0.0.1:8000/v1"
    with pytest.raises(ValueError, match="allowed: http://127.0.0.1:8000/v1, http://allowed.example/v1"):
        settings.allow_list.check(url)


def test_a_page_on_the_loopback_asks_anything_unless_servers_are_named() -> None:
    assert Settings().allow_list.check("http://elsewhere:1") == "http://elsewhere:1/v1"
    named = Settings(allow_urls=("http://allowed.example",)).allow_list  # behind a proxy, others can reach it
    with pytest.raises(ValueError, match="is not allowed"):
        named.check("http://elsewhere:1")
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.com", None)] == [False] * 5
    assert not AllowList((), everything=False).everything


def test_a_mounted_page_has_no_key_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It must not lend the operator's key or ask for the password of another page."""
    monkeypatch.setenv("CLLM_API_KEY", "s3cret")
    monkeypatch.setenv("CLLM_UI_PASSWORD", "pw")
    monkeypatch.setenv("CLLM_UI_ALLOW_URL", "http://a http://b:1/v1")
    monkeypatch.setenv("CLLM_UI_VOTES", str(tmp_path / "votes"))
    settings = mounted_settings("http://0.0.0.0:8000/v1")
    assert (settings.api_key, settings.password) == ("none", None)
    assert settings.allow_list.urls == ("http://0.0.0.0:8000/v1", "http://a/v1", "http://b:1/v1")
    assert not settings.allow_list.everything and settings.votes == tmp_path / "votes"
    monkeypatch.setenv("CLLM_UI_TEMPERATURE", "0.7")
    monkeypatch.setenv("CLLM_UI_MAX_TOKENS", "64")
    settings = mounted_settings("http://0.0.0.0:8000/v1")
    assert (settings.temperature, settings.max_tokens) == (0.7, 64)
    monkeypatch.delenv("CLLM_UI_ALLOW_URL")
    assert mounted_settings("http://127.0.0.1:8000/v1").allow_list.everything
    assert not mounted_settings("http://0.0.0.0:8000/v1").allow_list.everything


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [("TEMPERATURE", "warm", "'warm' is not a number"), ("TEMPERATURE", "nan", "nan is out of range"),
     ("TEMPERATURE", "3", "3.0 is out of range"), ("MAX_TOKENS", "1.5", "'1.5' is not a number"),
     ("MAX_TOKENS", "0", "0 is out of range")],
)  # fmt: skip
def test_numbers_of_the_environment_are_checked(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"CLLM_UI_{variable}", value)
    with pytest.raises(ValueError, match=f"{variable.lower()}: {message}|CLLM_UI_{variable}: {message}"):
        mounted_settings("http://127.0.0.1:8000/v1")


def test_secrets_are_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLLM_API_KEY", "s3cret")
    monkeypatch.setenv("CLLM_UI_PASSWORD", "pa55word")
    settings = Settings()
    assert (settings.api_key, settings.password) == ("s3cret", "pa55word")
    assert "s3cret" not in f"{settings} {Server('http://h/v1', 's3cret')}" and "pa55word" not in repr(settings)


@pytest.mark.parametrize(("option", "value"), [("skills", Path("/nowhere")), ("votes", Path("/nowhere/votes"))])
def test_files_that_cannot_be_used_are_named(option: str, value: Path) -> None:
    with pytest.raises(ValueError, match=f"{option}: '/nowhere"):
        Settings(**{option: value})  # type: ignore[arg-type]
