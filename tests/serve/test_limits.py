"""What no client may send: each gets a 4xx in OpenAI's shape at once, and the next request is answered."""

import json
import socket
import time

import openai
import pytest

from serve.app.limits import expansion

QUICK_S = 5  # of a busy machine; without other load it is milliseconds, and what hangs takes half a minute


@pytest.fixture
def send(server, http):
    """Send bytes on a connection of their own; return the status and the error. The server must still work."""

    def send(*pieces):
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            for piece in pieces:
                connection.sendall(piece)
            head, _, body = read_answer(connection)
        assert time.monotonic() - begun < QUICK_S
        assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).status_code == 200
        return int(head.split()[1]), json.loads(body)["error"]

    return send


def read_answer(connection):
    """Read one answer, which need not be the end of the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536) or pytest.fail("no answer")
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line.split()[1]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536) or pytest.fail("half an answer")
    return head, b"", body


def request(body, path="/v1/completions", **headers):
    lines = {"Host": "x", "Content_Type": "application/json", "Content_Length": len(body)} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'{"prompt": "\xff\xfe", "max_tokens": 1}',
        b'{"prompt": "\\ud800", "max_tokens": 1}',
        b'{"prompt": "a", "max_tokens": ' + b"1" * 5000 + b"}",
        b"[" * 500_000,
        b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"prompt": "a", "structured_outputs": {"json": ' + b'{"a":' * 900 + b"1" + b"}" * 901 + b"}",
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "top_p": 1e400}',
        b'{"prompt": "a", "logit_bias": {"3": NaN}}',
        b'{"prompt": [99999999], "max_tokens": 1}',
        b'{"prompt": "a", "structured_outputs": "a"}',
        b'{"prompt": "a", "structured_outputs": [null]}',
    ],
    ids=lambda body: repr(body[:40]),
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_malformed_bodies(send, body, path):
    if "chat" in path:
        body = body.replace(b'"prompt": "', b'"messages": [{"role": "user", "content": "hi"}], "stop": "')
    status, error = send(request(body, path))
    assert status == 400 and error["message"] and error["code"] == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", "2"), ("n", True), ("n", 1.0), ("seed", "1"), ("temperature", "0.5"), ("temperature", False), ("stream", 0)],
)
def test_values_of_another_type_are_not_converted(http, field, value):
    for path, asked in (
        ("chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("completions", {"prompt": "a"}),
    ):
        answer = http.post(f"/v1/{path}", json=asked | {"max_tokens": 1, field: value})
        assert answer.status_code == 400 and field in answer.text


def test_large_bodies(send, http):
    for size in (2**20 + 1, 50_000_000):
        body = b'{"prompt": "' + b"a" * size
        status, error = send(request(body))
        assert status == 413 and "1048576" in error["message"]
    assert http.post("/v1/completions", content=b" " * 2**20).status_code == 400  # as large as one may be


def test_large_bodies_in_pieces(send):
    piece = b"10000\r\n" + b"a" * 2**16 + b"\r\n"
    status, error = send(request(b"", Content_Length=None, Transfer_Encoding="chunked"), *[piece] * 20)
    assert status == 413 and error["type"]


@pytest.mark.parametrize("line", [b"a" * 2**16, b"a: " + b"b" * 1000 + b"\r\n"], ids=["one", "many"])
def test_headers_without_end(server, http, line):
    """They come before any key is looked at; the server hangs up, long before all of 64 MiB was sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nlong: ")
        with pytest.raises(ConnectionError):
            for _ in range(2**26 // len(line)):
                connection.sendall(line)
    assert http.get("/health").status_code == 200


def test_large_headers(server):
    """Complete ones, which would all be parsed before a key is looked at."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 2**15 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_a_client_that_leaves_before_its_body_is_complete(server, http):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request(b"", Content_Length=1000))
    assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).status_code == 200


def test_other_methods_and_types(http, send):
    for answer in (http.put("/v1/completions"), http.get("/v1/chat/completions"), http.post("/v1/models")):
        assert answer.status_code == 405 and answer.json()["error"]["code"] == 405
    status, error = send(request(b"{}", Content_Type="text/plain"))
    assert status == 400 and "application/json" in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 17),
        ("n", 0),
        ("stop", ["a"] * 17),
        ("stop", "a" * 1025),
        ("stop", ["a", "b" * 1025]),
        ("stop", [""]),
        ("max_tokens", 10**6),
        ("max_tokens", -1),
        ("prompt", ["a"] * 129),
        ("prompt", "a b " * 50_000),
        ("logprobs", 1000),
        ("priority", 5),
    ],
    ids=lambda value: str(value)[:20],
)
def test_more_than_is_allowed(client, server, field, value):
    begun = time.monotonic()
    asked = {"prompt": "a", "max_tokens": 1} | {field: value}
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=server.name, extra_body={"priority": asked.pop("priority", 0)}, **asked)
    assert time.monotonic() - begun < QUICK_S
    assert client.completions.create(model=server.name, prompt="a", max_tokens=1, n=16).choices[15].index == 15


def test_a_prompt_that_is_longer_than_the_context(client, server):
    with pytest.raises(openai.BadRequestError, match="input"):
        client.chat.completions.create(model=server.name, messages=[{"role": "user", "content": "ab " * 5000}])


PATTERNS = ["(a|b){10000}", "a{129}", "((((a?){100})?){100})?", "^(.{0,100}){100}x", ".{0,100}" * 100, "a" * 1001]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern[:20])
def test_patterns_that_would_take_long(client, server, pattern):
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string", "pattern": pattern}]}}}
    for constraint in (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
        {"structured_outputs": {"json": json.dumps(schema)}},
        {"structured_outputs": {"regex": pattern}},
    ):
        begun = time.monotonic()
        with pytest.raises(openai.BadRequestError) as error:
            client.completions.create(model=server.name, prompt="a", max_tokens=4, extra_body=constraint)
        assert time.monotonic() - begun < QUICK_S
        assert error.value.body["param"] == next(iter(constraint))


@pytest.mark.parametrize("pattern", ["(a+)+b", "(x+x+)+y", "(a|aa)*b", "[a-z]{100}", "(a?){100}a{100}"])
def test_patterns_that_only_look_bad(client, server, pattern):
    begun = time.monotonic()
    for constraint in (
        {"structured_outputs": {"regex": pattern}},
        {"structured_outputs": {"json": {"type": "string", "pattern": pattern}}},
    ):
        answer = client.completions.create(model=server.name, prompt="a", max_tokens=4, extra_body=constraint)
        assert answer.choices[0].text
    assert time.monotonic() - begun < QUICK_S


def test_large_grammars(client, server):
    for constraint in ({"choice": [str(i) for i in range(20_000)]}, {"grammar": 'root ::= "' + "a" * 40_000 + '"'}):
        with pytest.raises(openai.BadRequestError, match="structured_outputs"):
            client.completions.create(
                model=server.name, prompt="a", max_tokens=4, extra_body={"structured_outputs": constraint}
            )


@pytest.mark.parametrize(
    ("pattern", "size", "largest"),
    [
        ("abc", 3, 0),
        ("a{3}b", 4, 3),
        ("(ab){3}", 6, 3),
        ("((ab){2}c){0,10}", 50, 10),
        (r"\({3}", 3, 3),
        (r"[{}(\]]{4}", 4, 4),
        ("[]a]{4}", 4, 4),
        ("(a{2,}){3}", 6, 3),
        ("a{,3}", 5, 0),
        (")(", 1, 0),
        ("(((a", 1, 0),
        ("", 0, 0),
    ],
)
def test_the_size_of_a_pattern(pattern, size, largest):
    assert expansion(pattern) == (size, largest)


def test_a_request_keeps_its_name(http, server):
    names = {}
    for given in ("mine-1.a_b", "with space", "x" * 65, "", "a/b"):
        answer = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers={"X-Request-Id": given})
        names[given] = answer.headers["x-request-id"]
        assert names[given] in answer.json()["id"]
    assert [given for given, name in names.items() if given == name] == ["mine-1.a_b"]
    assert len(set(names.values())) == 5
    assert http.get("/nothing", headers={"X-Request-Id": "lost"}).headers["x-request-id"] == "lost"


def test_no_other_site_may_read_the_answers(http):
    answer = http.get("/v1/models", headers={"Origin": "https://example.org"})
    preflight = http.options(
        "/v1/completions", headers={"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    )
    for headers in (answer.headers, preflight.headers):
        assert "access-control-allow-origin" not in headers
    assert preflight.status_code == 400


def test_what_was_asked_and_refused_is_counted(http, server):
    def count(name):
        lines = http.get("/metrics").text.splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith(name)}

    before, refused = count("cllm_"), count("cllm_refusals_total")
    for model in (server.name, f"{server.name}:base", f"{server.name}@0.3", f"{server.name}@0.3", f"{server.name}@9"):
        http.post("/v1/completions", json={"model": model, "prompt": "a", "max_tokens": 1})
    http.get("/nothing")
    after = count("cllm_")
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert {name: grown[name] for name in grown if "requests_total" in name} == {
        'cllm_requests_total{kind="trained"}': 1,
        'cllm_requests_total{kind="base"}': 1,
        'cllm_requests_total{kind="other"}': 2,
    }
    assert grown['cllm_control_scale_bucket{le="0.0"}'] == 1 and grown['cllm_control_scale_bucket{le="0.5"}'] == 3
    assert grown['cllm_refusals_total{reason="invalid"}'] == grown['cllm_refusals_total{reason="not_found"}'] == 1
    assert refused.keys() <= after.keys()
