"""How a server is run: keys, a file of options, a full queue, clients that leave, the end of server and engine.

Two servers of their own, started at once, since both are ended here.
"""

import hashlib
import json
import os
import signal
import threading
import time

import httpx
import openai
import psutil
import pytest

from docs import reference
from tests import serving, tiny_models

KEYS = ["key-one", "key-two", "key-of-the-file", "key-of-the-hash"]
DRAIN_S = 10
PATIENCE_S = 120  # of a busy machine; what is to be quick is read in the server's log, by its own clock
LONG = {"prompt": "a", "stream": True, "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """One server with keys, few places and short patience; one to be killed."""
    directory = tmp_path_factory.mktemp("operations")
    base = tiny_models.write_base(directory / "base", max_position_embeddings=32768)
    model = tiny_models.write_dual(base, directory / "long")
    keys = directory / "keys"
    keys.write_text(f"# keys\n{KEYS[2]}\nsha256:{hashlib.sha256(KEYS[3].encode()).hexdigest()}\n")
    config = directory / "serve.yaml"
    config.write_text(
        f"api_key_file: {keys}\nmax_queue: 2\ndefault_scale: 0.5\nmax_scale: 1.25\nmax_tokens: 30000\n"
        "body_seconds: 1\ndrain_seconds: 99\nname: of-the-file\nengine: {max-num-seqs: 8, enable_log_requests: false}\n"
    )
    begun = [
        serving.begin(
            model, "long", "--config", config, CLLM_API_KEYS=",".join(KEYS[:2]), CLLM_DRAIN_SECONDS=str(DRAIN_S),
            CLLM_MAX_SCALE="1.5",
        ),
        serving.begin(model, "doomed", "--log-prompts"),
    ]  # fmt: skip
    try:
        yield [serving.wait(server) for server in begun]
    finally:
        for server in begun:
            serving.kill(server)


@pytest.fixture(scope="module")
def guarded(servers):
    return servers[0]


@pytest.fixture(scope="module")
def doomed(servers):
    return servers[1]


@pytest.fixture
def http(guarded):
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    with httpx.Client(base_url=guarded.root, verify=False, timeout=PATIENCE_S, headers=headers) as session:
        yield session


def open_stream(server, tokens, key=KEYS[0]):
    """Start a long answer, and return it with its first chunk."""
    plain = httpx.Client(verify=False, timeout=PATIENCE_S)  # to load certificates for loopback can take long
    client = openai.OpenAI(base_url=server.url, api_key=key, max_retries=0, http_client=plain)
    stream = client.completions.create(
        model=server.name, max_tokens=tokens, extra_body={"ignore_eos": True}, prompt="a", temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    return stream, next(stream)


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def metric(http, name):
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def descendants(server):
    return psutil.Process(server.process.pid).children(recursive=True)


def test_only_probes_need_no_key(guarded):
    paths = ["/v1/models", "/v1/models/long", "/v1/control", "/metrics", "/metrics/", "/docs", "/openapi.json", "/load"]
    paths += ["/version", "/tokenize", "/nothing", "/", "/health/", "/health/../v1/models", "//health", "/HEALTH"]
    with httpx.Client(base_url=guarded.root) as session:
        for path in paths:
            for method in ("GET", "POST", "OPTIONS", "HEAD"):
                answer = session.build_request(method, guarded.root + path)
                answer.url = answer.url.copy_with(raw_path=path.encode())
                answer = session.send(answer)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert method == "HEAD" or answer.json()["error"]["code"] == 401
        assert session.get("/health").status_code == session.get("/ready").status_code == 200


def test_each_key_opens_and_others_do_not(guarded):
    for key in KEYS:
        assert openai.OpenAI(base_url=guarded.url, api_key=key).models.list().data[0].id == "long"
    for key in ("key-on", "key-one2", "KEY-ONE", "x" * 5000, "key-one,key-two", "none"):
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=guarded.url, api_key=key, max_retries=0).models.list()


def test_the_document_says_where_a_key_is_needed(http):
    document = http.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            guarded = path not in ("/health", "/ready")
            assert (operation.get("security") == [{"key": []}]) == ("401" in operation["responses"]) == guarded


def test_the_api_reference_is_what_this_server_documents(http):
    """Else write it again: `python -m docs.reference`."""
    assert reference.PAGE.read_text() == reference.page(http.get("/openapi.json").json())


def test_keys_are_not_passed_on(guarded):
    for process in descendants(guarded):
        assert not any(key in "".join(process.environ().values()) for key in KEYS)


def test_options_of_command_line_environment_and_file(http):
    control = http.get("/v1/control").json()
    assert control["default_scale"] == 0.5  # of the file
    assert control["max"] == 1.5  # of the environment, before the file
    assert http.get("/v1/models").json()["data"][0]["id"] == "long"  # of the command line, before the file
    answer = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).json()
    assert answer["system_fingerprint"].endswith("-s0.5")
    for body in ({"control_scale": 1.6}, {"model": "long@1.6"}, {"max_tokens": 30001}):
        assert http.post("/v1/completions", json={"prompt": "a"} | body).status_code == 400


def test_a_body_that_never_comes(guarded, http):
    def slow():
        yield b'{"prompt": '
        time.sleep(1.5)
        yield b'"a"}'

    answer = http.post("/v1/completions", content=slow(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 408 and answer.json()["error"]["code"] == 408


def test_a_full_queue_and_clients_that_leave(guarded, http):
    """Two places: the third request is turned away at once; once both clients left, the engine is idle again."""
    streams = [open_stream(guarded, 30_000)[0] for _ in range(2)]
    for _ in range(3):
        answer = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})
        assert answer.status_code == 429 and answer.json()["error"]["code"] == 429
        assert int(answer.headers["retry-after"]) >= 1
    assert http.get("/ready").status_code == 200
    assert metric(http, "vllm:num_requests_running") == 2
    for stream in streams:
        stream.close()
    until(lambda: metric(http, "vllm:num_requests_running") == 0, PATIENCE_S)
    assert metric(http, 'cllm_refusals_total{reason="queue"}') == 3
    refused = [json.loads(line) for line in guarded.log.read_text().splitlines() if '"status": 429' in line]
    assert len(refused) == 3 and all(line["seconds"] < 0.5 for line in refused)
    assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).status_code == 200


def test_a_client_that_leaves_before_a_whole_answer(guarded, http):
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json=LONG | {"stream": False, "max_tokens": 30_000}, timeout=1)
    until(lambda: metric(http, "vllm:num_requests_running") == 0, PATIENCE_S)


def test_each_request_is_logged_without_its_text(guarded, doomed, http):
    body = {"model": "long@0.25", "prompt": "secret words", "max_tokens": 3, "ignore_eos": True}
    assert http.post("/v1/completions", json=body, headers={"X-Request-Id": "logged"}).status_code == 200
    until(lambda: "logged" in guarded.log.read_text(), PATIENCE_S)
    lines = guarded.log.read_text().splitlines()
    line = json.loads(next(line for line in lines if '"logged"' in line))
    assert (line["status"], line["path"], line["method"]) == (200, "/v1/completions", "POST")
    assert (line["model"], line["scale"], line["completion_tokens"], line["end"]) == ("long@0.25", 0.25, 3, "complete")
    assert sum('"end": "left"' in line for line in lines) == 3  # the clients of the tests above
    assert "secret words" not in guarded.log.read_text()
    assert not any(key in guarded.log.read_text() for key in KEYS)
    httpx.post(doomed.root + "/v1/completions", json={"prompt": "wanted words", "max_tokens": 1})
    until(lambda: "wanted words" in doomed.log.read_text(), PATIENCE_S)


def test_sigterm_lets_requests_end_until_its_deadline(guarded, http):
    """Of two running answers the short one is finished, the long one broken off; nothing new is let in; exit code 0."""
    short, _ = open_stream(guarded, 100)
    long, _ = open_stream(guarded, 30_000)
    begun = time.monotonic()
    guarded.process.send_signal(signal.SIGTERM)
    until(lambda: http.get("/ready").status_code == 503, PATIENCE_S)
    refused = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == 503
    assert http.get("/health").status_code == 200
    chunks = list(short)
    assert chunks[-2].choices[0].finish_reason == "length" and chunks[-1].usage.completion_tokens == 100
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        list(long)
    assert guarded.process.wait(DRAIN_S + PATIENCE_S) == 0
    assert time.monotonic() - begun >= DRAIN_S


def test_a_dead_engine_ends_the_server(doomed):
    """Requests at work get an error, the server is not ready, and it ends with a code that makes a supervisor act."""
    results = {}
    http = httpx.Client(base_url=doomed.root, verify=False, timeout=PATIENCE_S)

    def ask_whole():
        results["whole"] = http.post("/v1/completions", json=LONG | {"stream": False, "max_tokens": 30_000})

    stream, _ = open_stream(doomed, 30_000)
    asking = threading.Thread(target=ask_whole)
    asking.start()
    until(lambda: metric(http, "vllm:num_requests_running") == 2, PATIENCE_S)
    engine = next(process for process in descendants(doomed) if "EngineCore" in "".join(process.cmdline()))
    begun = time.monotonic()
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        list(stream)
    asking.join(PATIENCE_S)
    assert results["whole"].status_code == 500 and results["whole"].json()["error"]["code"] == 500
    assert time.monotonic() - begun < PATIENCE_S
    assert not serving.is_ready(doomed)
    assert doomed.process.wait(PATIENCE_S) == 1
