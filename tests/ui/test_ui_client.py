"""The client against real HTTP: numbers, names, and every way in which a stream can go wrong."""

import asyncio
import socket

import pytest

from tests.ui.fake_server import REPORT, FakeServer, Fault, Plan, wait_until
from ui import render
from ui.answer import Answer, Target
from ui.client import ChatClient
from ui.settings import Settings

HELLO = [{"role": "user", "content": "hello"}]


def ask(fake_url: str, model: str, **settings: float) -> Answer:
    answer = Answer(Target(model, scale=0.0 if model.endswith(":base") else 1.0))
    asyncio.run(ChatClient(Settings(api_url=fake_url, **settings)).ask(answer, HELLO))  # type: ignore[arg-type]
    return answer


def test_an_answer_carries_text_numbers_and_proof(fake: FakeServer) -> None:
    fake.plans["demo"] = Plan(pieces=["a", "b ", "\u2028c", "é"] * 5, delay_s=0.02)
    answer = ask(fake.url, "demo")
    assert (answer.state, answer.error, answer.finish_reason) == ("done", "", "stop")
    assert answer.text == "ab \u2028cé" * 5  # a line separator inside a token is no end of a line
    assert answer.fingerprint == "cllm-0123456789ab-s1"
    assert answer.tokens == 20 and answer.tokens_are_exact
    assert answer.first_token_s is not None and 0.015 < answer.first_token_s < 2
    assert answer.tokens_per_second is not None and 5 < answer.tokens_per_second < 51


def test_the_server_s_count_of_tokens_wins_over_counted_chunks() -> None:
    answer = Answer(Target("m"))
    answer.add("two tokens", 1.0)
    answer.add("and more", 2.0)

    class Usage:
        completion_tokens = 5

    assert (answer.tokens, answer.tokens_are_exact, answer.tokens_per_second) == (2, False, 1.0)
    answer.count(Usage())
    assert (answer.tokens, answer.tokens_are_exact, answer.tokens_per_second) == (5, True, 4.0)


def test_the_request_is_what_openai_s_clients_send(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLLM_API_KEY", "s3cret")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    ask(fake.url, "demo:base", temperature=0.5)
    assert fake.requests == [
        {
            "model": "demo:base",
            "messages": HELLO,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
        }
    ]
    assert fake.headers[0]["authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(Settings())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("http_error", "The server refused with HTTP 400: the prompt is too long"),
        ("dies", "The stream broke off after 6 tokens."),
        ("error_event", "The stream broke off after 6 tokens. out of memory"),
        ("no_finish", "The stream broke off after 12 tokens."),
        ("garbage", "The server sent something that is not a chat completion stream."),
        (
            "wrong_model",
            "The server answered as “impostor”, but “demo” was asked for. Its text is not shown.",
        ),
        (
            "wrong_scale",
            "The fingerprint cllm-0123456789ab-s0 does not belong to “demo”. Its text is not shown.",
        ),
    ],
)
def test_each_fault_becomes_a_sentence(fake: FakeServer, fault: Fault, message: str) -> None:
    fake.plans["demo"].fault, fake.plans["demo"].status = fault, 400
    answer = ask(fake.url, "demo")
    assert (answer.state, answer.error) == ("failed", message)
    if fault.startswith("wrong"):
        assert answer.text == ""


def test_the_base_under_a_trained_fingerprint_is_refused(fake: FakeServer) -> None:
    fake.plans["demo:base"].fault = "wrong_scale"
    answer = ask(fake.url, "demo:base")
    assert "cllm-0123456789ab-s1 does not belong to “demo:base”" in answer.error and answer.text == ""


def test_a_server_that_is_still_loading(fake: FakeServer) -> None:
    fake.plans["demo"].fault, fake.plans["demo"].status = "http_error", 503
    assert "not ready" in ask(fake.url, "demo").error


def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    answer = ask(url, "demo")
    assert (answer.state, answer.error) == ("failed", f"No server answers at {url}.")
    assert asyncio.run(ChatClient(Settings(api_url=url)).info()).problem == f"No server answers at {url}."


def test_cancelling_closes_the_stream(fake: FakeServer) -> None:
    fake.plans["demo"] = Plan(pieces=["x "] * 1000, delay_s=0.02)

    async def scenario() -> Answer:
        answer = Answer(Target("demo"))
        task = asyncio.create_task(ChatClient(Settings(api_url=fake.url)).ask(answer, HELLO))
        while answer.tokens < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        return answer

    answer = asyncio.run(scenario())
    assert answer.state == "stopped" and answer.text.startswith("x x x ")
    wait_until(lambda: fake.left == ["demo"], 3)


def test_info_names_both_models_and_brings_the_report(fake: FakeServer) -> None:
    info = asyncio.run(ChatClient(Settings(api_url=fake.url)).info())
    assert info.ready and (info.base, info.control) == (Target("demo:base", 0.0, 1024), Target("demo", 1.0, 1024))
    assert info.report is not None and len(info.report.examples) == len(REPORT["examples"])


def test_info_of_a_server_without_report_not_ready_or_of_another_kind(fake: FakeServer) -> None:
    def info() -> object:
        return asyncio.run(ChatClient(Settings(api_url=fake.url)).info())

    fake.report = None
    assert info().report is None and info().ready  # type: ignore[attr-defined]
    fake.report = {
        "schema": 1,
        "skills": [{"name": "s", "kind": "new", "scores": {"base": 0.5, "control": 1, "full_fine_tuning": None}}],
        "examples": [{"skill": "s", "prompt": "p", "answers": {"base": "b", "full_fine_tuning": None}}],
    }
    report = info().report  # type: ignore[attr-defined]
    assert report.mean("new", "full_fine_tuning") is None and not report.has_recording
    assert "Full fine-tuning" not in render.summary(report)
    fake.report = {"schema": 99, "examples": []}
    assert info().report is None  # type: ignore[attr-defined]
    fake.report = {"schema": 1, "skills": "none"}
    assert info().report is None  # type: ignore[attr-defined]
    del fake.plans["demo:base"]
    assert "lists demo, but no NAME with its NAME:base" in info().problem  # type: ignore[attr-defined]
    fake.ready = False
    assert "not ready" in info().problem  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", ["ftp://host/v1", "127.0.0.1:8000", "http://user:pw@host/v1"])
def test_an_address_that_cannot_be_asked_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="api_url"):
        Settings(api_url=url)


def test_addresses_with_and_without_v1() -> None:
    assert Settings(api_url="http://h:1").api_url == "http://h:1/v1"
    assert Settings(api_url="http://h:1/v1/").server_root == "http://h:1"
    assert Settings(api_url="https://h/proxy/v1").server_root == "https://h/proxy"
