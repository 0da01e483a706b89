"""One engine on two machines: here two processes with command lines of their own, which share nothing but TCP."""

import httpx
import pytest

from tests import serving, tiny_models
from tests.greedy import assert_greedy, load_hf
from tests.vllm_engines import prompts

SCALES = [0.0, 1.0, 0.5, 1.7]
PATIENCE_S = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("nodes")
    base = tiny_models.write_base(directory / "base", num_key_value_heads=2)
    return tiny_models.write_dual(base, directory / "dual", "dlerp")


def test_two_machines_serve_one_model_until_one_is_gone(model):
    """Each scale's answers are Hugging Face's; without its other half the server answers with an error, and ends."""
    engine = ["--tensor-parallel-size", 2, "--nnodes", 2, "--master-addr", "127.0.0.1"]
    engine += ["--master-port", serving.free_port()]
    begun = [
        serving.begin(model, "tiny", *engine, "--node-rank", rank, *more, VLLM_CPU_OMP_THREADS_BIND="nobind")
        for rank, more in ((0, ()), (1, ["--headless"]))
    ]
    server, workers = begun
    asked = prompts(4, len(tiny_models.VOCABULARY))
    body = {"prompt": asked, "max_tokens": 24, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    try:
        serving.wait(server)
        with httpx.Client(base_url=server.root, timeout=PATIENCE_S) as http:
            for scale in SCALES:
                answer = http.post("/v1/completions", json=body | {"control_scale": scale}).json()
                assert answer["system_fingerprint"].endswith(f"-s{scale:g}")
                assert_greedy(load_hf(model), asked, [one["token_ids"] for one in answer["choices"]], [scale] * 4)
            serving.kill(workers)
            assert http.post("/v1/completions", json=body).status_code == 500
        assert server.process.wait(PATIENCE_S) == 1
    finally:
        for each in begun:
            serving.kill(each)
