"""vLLM's own options on the command line of `cllm serve`: parsed by vLLM, with our defaults and refusals.

An option is honoured or refused, never ignored. Imports vllm, so it is imported late.
"""

import os
from argparse import Namespace

from vllm.config import ParallelConfig
from vllm.config.model import HfOverrides
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser

from cllm_model.checkpoint import CONTROL_LLM_TYPES, read_config
from cllm_model.vllm.dial import dial_options
from cllm_model.vllm.limits import refuse_head_size, refuse_unsupported
from cllm_model.vllm.stack import hf_overrides
from serve.preflight import check_compiler
from serve.settings import CpuDefaults, Settings

_OWN = {
    "model_tag": "MODEL, which is given once",
    "model": "MODEL",
    "served_model_name": "--name",
    "host": "--host",
    "port": "--port",
    "config": "--config",
    "api_key": "--api-key-file or CLLM_API_KEYS",
    "enable_request_id_headers": "the server, which names every request",
    "shutdown_timeout": "--drain-seconds",
    "disable_access_log_for_endpoints": "the server, which logs probes only when something is wrong",
    "fingerprint_mode": "checkpoint and control scale, which are the fingerprint",
    "fingerprint_value": "checkpoint and control scale, which are the fingerprint",
}
_REFUSED = {
    "api_server_count": "this server has one process for the API",
    "grpc": "this server speaks HTTP",
    "grpc_port": "this server speaks HTTP",
    "uds": "this server listens on --host and --port",
    "data_parallel_size": "one engine is served",
    "data_parallel_rank": "one engine is served",
    "data_parallel_start_rank": "one engine is served",
    "data_parallel_external_lb": "one engine is served",
    "data_parallel_hybrid_lb": "one engine is served",
    "data_parallel_multi_port_external_lb": "one engine is served",
    "enable_dbo": "micro-batches would not split the control scales",
    "ubatch_size": "micro-batches would not split the control scales",
    "enable_lora": "adapter names do not match the two branches",
    "lora_modules": "adapter names do not match the two branches",
    "speculative_config": "it drops the logits processor that carries the control scale",
    "kv_transfer_config": "moving KV blocks of two branches is untested",
    "h11_max_header_count": "nothing counts headers; --h11-max-incomplete-event-size bounds what they take",
    "trust_request_chat_template": "a template is code, and requests bring none",
    **dict.fromkeys(
        ("tokens_only", "enable_scale_out", "enable_tokenizer_info_endpoint", "enable_offline_docs", "tool_server"),
        "the routes that it is for are closed here",
    ),
}


_HEADER_BYTES = 2**16  # read before any key is looked at; vLLM's 4 MiB hold some 10^5 headers


def parse(settings: Settings, options: list[str]) -> Namespace:
    """Return vLLM's arguments for this server; vLLM's parser ends the process with code 2 on unknown options.

    Args:
        settings: What our own options say.
        options: The rest of the command line.

    Raises:
        ValueError: An option has a value that is not allowed, or does not work with this server.
    """
    parser = make_arg_parser(FlexibleArgumentParser(prog="cllm serve MODEL", add_help=False))
    _set_defaults(parser, settings)
    args = parser.parse_args(options)
    _refuse(parser, args)
    args.model = args.model_tag = str(settings.model)
    args.served_model_name = settings.ids.listed
    args.host, args.port = settings.host, settings.port
    args.disable_uvicorn_access_log = True  # there is serve.app.access_log
    args.fingerprint_mode = "none"  # every answer has its own, see serve.app.provenance
    args.hf_overrides = _overrides(settings, args.hf_overrides)
    if settings.ui and args.ssl_certfile:
        raise ValueError(f"--ssl-certfile: {args.ssl_certfile!r} is not supported with --ui: let a proxy speak TLS")
    if settings.max_tokens is not None:
        # Where a request names no number; a larger one is refused, see serve.app.limits.
        args.override_generation_config = {**args.override_generation_config, "max_new_tokens": settings.max_tokens}
    _settle(parser, args)
    try:
        validate_parsed_serve_args(args)
        validate_api_server_args(args)
    except (TypeError, KeyError) as error:
        raise ValueError(error.args[0]) from error
    return args


def check_engine(args: Namespace) -> None:
    """Check the configuration that the engine will be started with, and add what the dial needs under its model runner.

    Raises:
        ValueError: vLLM or this runtime refuses it.
    """
    config = AsyncEngineArgs.from_cli_args(args).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    refuse_unsupported(config)
    check_place(config.parallel_config, args.headless)
    vars(args).update(dial_options(config))
    if config.model_config.runner_type != "generate":
        raise ValueError(f"--runner: {config.model_config.runner_type!r} is not supported; allowed: generate")
    refuse_head_size(config.model_config)
    if current_platform.is_cpu() and not config.model_config.enforce_eager:
        check_compiler()


def check_place(config: ParallelConfig, is_headless: bool) -> None:
    """Check what runs the workers, and which of an engine's machines this one is.

    Raises:
        ValueError: Names the option, and says what is allowed.
    """
    if config.distributed_executor_backend == "external_launcher":
        raise ValueError("--distributed-executor-backend: 'external_launcher' is for scripts; allowed: uni, mp, ray")
    if config.use_ray and not current_platform.ray_device_key:
        raise ValueError("--distributed-executor-backend: 'ray' is not supported on this platform; allowed: uni, mp")
    if config.node_rank >= config.nnodes:
        raise ValueError(f"--node-rank: {config.node_rank} is out of range; allowed: below --nnodes, {config.nnodes}")
    if is_headless != (config.node_rank > 0):
        raise ValueError(
            f"--node-rank: {config.node_rank} {'with' if is_headless else 'without'} --headless: the machine of rank 0 "
            "serves, and each of the others runs workers, with --headless"
        )


def _overrides(settings: Settings, given: HfOverrides) -> HfOverrides:
    needed = hf_overrides(settings.model)
    if needed and given:
        raise ValueError(
            f"--hf-overrides: {given!r} is not supported for a published stacked checkpoint, whose configuration is "
            "overridden already; write it in our format first, with `cllm convert`"
        )
    return needed or given


def _set_defaults(parser: FlexibleArgumentParser, settings: Settings) -> None:
    parser.set_defaults(enforce_eager=None, h11_max_incomplete_event_size=_HEADER_BYTES)
    # vLLM's own default turns an fp32 checkpoint into bf16 without a word: not what was trained and measured.
    dtype = read_config(settings.model, CONTROL_LLM_TYPES).dtype
    if dtype is not None:
        parser.set_defaults(dtype=str(dtype).removeprefix("torch."))
    if current_platform.is_cpu():
        # On a CPU, vLLM 0.32 cannot load what it saved ahead of time, so it would compile at every start.
        os.environ.setdefault("VLLM_USE_AOT_COMPILE", "0")
        parser.set_defaults(block_size=CpuDefaults.block_size, kv_cache_memory_bytes=CpuDefaults.kv_cache_memory_bytes)


def _refuse(parser: FlexibleArgumentParser, args: Namespace) -> None:
    if os.environ.get("VLLM_API_KEY"):
        raise ValueError("VLLM_API_KEY: it would guard some routes only; give keys by --api-key-file or CLLM_API_KEYS")
    given = {name for name in vars(args) if _is_given(parser, args, name)}
    for name in sorted(given & _OWN.keys()):
        value = "the key" if name == "api_key" else repr(getattr(args, name))
        raise ValueError(f"--{name.replace('_', '-')}: {value} is given by {_OWN[name]} here")
    for name in sorted(given & _REFUSED.keys()):
        raise ValueError(f"--{name.replace('_', '-')}: {getattr(args, name)!r} is not supported: {_REFUSED[name]}")


def _settle(parser: FlexibleArgumentParser, args: Namespace) -> None:
    """Let our defaults give way to options that mean the same thing by another name."""
    if args.enforce_eager is None:
        wants_compiled = any(_is_given(parser, args, name) for name in ("optimization_level", "compilation_config"))
        args.enforce_eager = current_platform.is_cpu() and CpuDefaults.enforce_eager and not wants_compiled
    if _is_given(parser, args, "gpu_memory_utilization") and not _is_given(parser, args, "kv_cache_memory_bytes"):
        args.kv_cache_memory_bytes = None


def _is_given(parser: FlexibleArgumentParser, args: Namespace, name: str) -> bool:
    return bool(getattr(args, name) != parser.get_default(name))
