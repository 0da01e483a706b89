"""The client against real HTTP: numbers, names, and every way in which a stream can go wrong."""

import asyncio
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from pydantic import ValidationError

from tests.ui.fake_server import REPORT, FakeServer, Fault, wait_until
from ui.answer import Answer, Sampling, Target, Turn, Usage, WrongModel
from ui.client import ChatClient
from ui.info import Dial, ServerInfo, read_info
from ui.servers import Server

HELLO = [{"role": "user", "content": "hello"}]


def target(url: str, model: str) -> Target:
    return Target(model, Server(url), scale=0.0 if model.endswith(":base") else 1.0)


def answer_to(asked: Target, **sampling: Any) -> Turn:
    answer = Answer(asked, "hello", Sampling(**sampling))
    asyncio.run(ChatClient().ask(answer, HELLO))
    return answer.turn


def ask(url: str, model: str) -> Turn:
    return answer_to(target(url, model))


def info(url: str, key: str = "none") -> ServerInfo:
    return asyncio.run(ChatClient().info(Server(url, key)))


def test_an_answer_carries_text_numbers_and_proof(fake: FakeServer) -> None:
    fake.plan("demo", pieces=["a", "b ", "\u2028c", "é"] * 5, delay_s=0.02)
    answer = ask(fake.url, "demo")
    assert (answer.state, answer.error, answer.finish_reason) == ("done", "", "stop")
    assert answer.text == "ab \u2028cé" * 5  # a line separator inside a token is no end of a line
    assert answer.fingerprint == "cllm-0123456789ab-s1"
    assert (answer.tokens, answer.tokens_are_exact, answer.prompt_tokens) == (20, True, 3)
    assert answer.first_token_s is not None and answer.first_token_s > 0.015
    assert answer.tokens_per_second is not None and 0 < answer.tokens_per_second < 51


def test_the_server_s_count_of_tokens_wins_over_counted_chunks() -> None:
    answer = Answer(target("http://h/v1", "m"), "p", Sampling())
    answer.add("two tokens", 1.0)
    answer.add("and more", 2.0)
    turn = answer.turn
    assert (turn.tokens, turn.tokens_are_exact, turn.tokens_per_second) == (2, False, 1.0)
    answer.count(Usage(prompt_tokens=7, completion_tokens=5))
    assert (turn.tokens, turn.tokens_are_exact, turn.tokens_per_second) == (5, True, 4.0)


def test_the_request_is_what_openai_s_clients_send(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    server = Server(fake.url, "s3cret")
    turn = answer_to(Target("demo:base", server, 0.0), temperature=0.5, max_tokens=9)
    common = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    assert fake.requests == [{"model": "demo:base", **common, "temperature": 0.5, "max_tokens": 9}]
    assert fake.headers[0]["authorization"] == "Bearer s3cret"
    assert "s3cret" not in f"{server} {turn} {ServerInfo(server)}"


def test_a_limit_that_the_context_has_no_room_for_is_left_to_the_server(fake: FakeServer) -> None:
    for limit in (256, 255):
        answer_to(Target("demo", Server(fake.url), 1.0, context=256), max_tokens=limit)
    assert [request.get("max_tokens") for request in fake.requests] == [None, 255]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("http_error", "The server refused with HTTP 400: the prompt is too long"),
        ("dies", "The stream broke off after 6 tokens."),
        ("error_event", "The stream broke off after 6 tokens. out of memory"),
        ("no_finish", "The stream broke off after 12 tokens."),
        ("garbage", "The server sent something that is not a chat completion stream."),
        ("html", "The stream broke off after 0 tokens."),
        ("redirect", "redirects elsewhere, which is not followed."),
        ("wrong_model", "The server answered as “impostor”, but “demo” was asked for. Its text is not shown."),
        ("wrong_scale", "The fingerprint “cllm-0123456789ab-s2” does not belong to “demo”. Its text is not shown."),
        ("no_mark", "The fingerprint “” does not belong to “demo”. Its text is not shown."),
        ("odd_chunk", "The server sent something that is not a chat completion stream."),
    ],
)
def test_each_fault_becomes_a_sentence(fake: FakeServer, fault: Fault, message: str) -> None:
    fake.plan("demo", fault=fault, status=400)
    answer = ask(fake.url, "demo")
    assert answer.state == "failed" and answer.error.endswith(message)
    assert len(fake.requests) == 1
    if "Its text is not shown." in message:
        assert answer.text == ""


def test_other_servers_may_answer_under_a_longer_name(fake: FakeServer) -> None:
    fake.plan("demo", fault="wrong_model")
    answer = answer_to(Target("demo", Server(fake.url)))
    assert (answer.state, answer.echoed) == ("done", "impostor")


def test_one_mark_at_the_beginning_is_enough() -> None:
    answer = Answer(target("http://h/v1", "demo"), "p", Sampling())
    answer.check("demo", "cllm-0123456789ab-s1")
    answer.check("demo", None)
    with pytest.raises(WrongModel, match="s0.5"):
        answer.check("demo", "cllm-0123456789ab-s0.5")
    assert answer.turn.fingerprint == "cllm-0123456789ab-s1"


def test_an_endless_answer_is_broken_off(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.client.MAX_CHARACTERS", 50)
    fake.plan("demo", pieces=["0123456789"] * 1000, delay_s=0)
    answer = ask(fake.url, "demo")
    assert answer.state == "failed" and "longer than 50 characters" in answer.error
    assert len(answer.text) == 60


def test_a_server_that_is_still_loading_and_a_wrong_key(fake: FakeServer) -> None:
    fake.plan("demo", fault="http_error", status=503)
    assert "not ready" in ask(fake.url, "demo").error
    fake.key = "right"
    assert "does not accept the API key" in ask(fake.url, "demo").error
    assert "does not accept the API key" in info(fake.url, "wrong").problem
    assert info(fake.url, "right").ready


def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    answer = ask(url, "demo")
    assert (answer.state, answer.error) == ("failed", f"No server answers at {url}.")
    assert info(url).problem == f"No server answers at {url}."


def test_cancelling_closes_the_stream(fake: FakeServer) -> None:
    fake.plan("demo", pieces=["x "] * 1000, hold_after=3)

    async def scenario() -> Turn:
        answer = Answer(target(fake.url, "demo"), "hello", Sampling())
        task = asyncio.create_task(ChatClient().ask(answer, HELLO))
        while answer.turn.tokens < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        return answer.turn

    answer = asyncio.run(scenario())
    assert (answer.state, answer.text) == ("stopped", "x x x ")
    wait_until(lambda: fake.left == ["demo"])


def test_info_names_the_models_at_every_scale_and_brings_the_report(fake: FakeServer) -> None:
    known = info(fake.url)
    assert known.ready and known.dial == Dial("demo", 1.0, 0.75, 0.0, 2.0) and known.checkpoint == "0123456789ab"
    models = {0: "demo:base", 0.25: "demo@0.25", 1: "demo", 1.5: "demo@1.5", 0.0001: "demo@0.0001"}
    assert {scale: known.at_scale(scale).model for scale in models} == models
    for scale, message in ((2.5, "from 0 to 2"), (-1, "from 0 to 2"), (0.00001, "would be rounded to 0")):
        with pytest.raises(ValueError, match=message):
            known.at_scale(scale)
    assert known.report is not None and len(known.report.examples) == len(REPORT["examples"])


def test_info_of_servers_without_report_dial_or_readiness(fake: FakeServer) -> None:
    fake.report = None
    assert info(fake.url).report is None and info(fake.url).ready
    for unfit in ({"schema": 99, "examples": []}, {"schema": 1, "skills": "none"}):
        fake.report = unfit
        assert info(fake.url).report is None
    fake.has_dial = False
    plain = info(fake.url)
    assert plain.ready and plain.models == ("demo",)
    with pytest.raises(ValueError, match="has no dial"):
        plain.at_scale(0.5)
    fake.ready = False
    assert "not ready" in info(fake.url).problem
    with pytest.raises(ValueError, match="not ready"):
        info(fake.url).at_scale(0.5)


class WebPage(BaseHTTPRequestHandler):
    """Answers every question with a page for people."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    def log_message(self, *_: Any) -> None: ...


def test_a_web_page_is_no_server_of_models() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), WebPage) as server:
        Thread(target=server.serve_forever).start()
        problem = info(f"http://127.0.0.1:{server.server_port}/v1").problem
        server.shutdown()
    assert "is not an OpenAI-compatible server" in problem


@pytest.mark.parametrize("control", [{"min": 1, "max": 0}, {"max": "<b>"}])
def test_a_dial_of_another_shape_is_refused(control: dict[str, Any]) -> None:
    models = {"data": [{"id": "m"}, {"id": "m:base"}]}
    with pytest.raises(ValueError):
        read_info(Server("http://h/v1"), models, control)


@pytest.mark.parametrize(
    "models", [None, [], {"data": 3}, {"data": [{}]}, {"data": [{"id": "m", "max_model_len": "long"}]}, "text"]
)
def test_a_list_of_models_of_another_shape_is_refused(models: Any) -> None:
    with pytest.raises(ValidationError):
        read_info(Server("http://h/v1"), models, None)
