"""What `cllm eval` does: check everything, load the model or find the server, measure, write, and tabulate."""

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cllm_model import checkpoint
from cllm_model.scale import check_scale
from training.evaluation import local
from training.evaluation.suites import HARNESS, evaluate, read_suite
from training.evaluation.target import Target
from training.measure import Measure, Results
from training.recipe import Evaluation
from training.report.file import environment, now, write_text

if TYPE_CHECKING:
    from training.evaluation.served import ServedModel


def run(
    model: str,
    suites: Sequence[str],
    scales: Sequence[float] | None,
    output: Path | None,
    limit: int | None,
    tokenizer: Path | None,
    settings: Evaluation,
) -> Results:
    """Measure a checkpoint, or the model of a running server, by suites at every scale.

    Args:
        model: Checkpoint directory, or address of a server.
        suites: JSONL files or `lm-eval:TASK`s, see `training.evaluation.suites`.
        scales: Control scales; None for those of `settings`, or 1 for a plain checkpoint.
        output: File for the results.
        limit: Most questions or texts of each suite.
        tokenizer: Directory with the served model's tokenizer, for `lm-eval:` suites.
        settings: Batch size and limits.

    Raises:
        ValueError: An argument cannot be used; nothing was loaded or asked.
    """
    is_server = model.startswith(("http://", "https://"))
    if scales is not None:
        scales = [check_scale(scale, "scales") for scale in scales]
        if len(set(scales)) < len(scales):
            raise ValueError(f"scales: {', '.join(f'{scale:g}' for scale in scales)}: name each once")
    if output is not None and not output.parent.is_dir():
        raise ValueError(f"output: {str(output)!r}: there is no directory {str(output.parent)!r}")
    asks_harness = any(source.startswith(HARNESS) for source in suites)
    if (tokenizer is not None) != (is_server and asks_harness):
        raise ValueError("tokenizer: needed with lm-eval tasks on a server, which have to count tokens, and only there")
    found = [read_suite(source, limit) for source in suites]
    if len({suite.facts.name for suite in found}) < len(found):
        raise ValueError(f"suite: {', '.join(suites)}: two have one name, by which results are told apart")
    batch = (settings.batch_size, settings.max_new_tokens, settings.window)
    target: Target
    if is_server:
        target = served = _server(model, *batch, str(tokenizer) if tokenizer else None)
        scales = served.check(settings.scales if scales is None else scales)
        digest = served.checkpoint
    else:
        scales = local.check_directory(Path(model), scales, settings.scales)
        digest = checkpoint.checkpoint_hash(Path(model))
        target = local.load(Path(model), *batch)
    results = Results(
        schema=1,
        created=now(),
        model=model if is_server else Path(model).resolve().name,
        checkpoint=digest,
        backend="server" if is_server else "transformers",
        scales=list(scales),
        suites=[suite.facts for suite in found],
        measures=evaluate(target, found, scales),
        settings={
            "batch_size": settings.batch_size,
            "max_new_tokens": settings.max_new_tokens,
            "window": settings.window,
            "limit": limit,
        },
        environment=environment() | ({"lm_eval": version("lm_eval")} if asks_harness else {}),
    )
    if output is not None:
        write_text(results.model_dump_json(by_alias=True, indent=1) + "\n", output)
    return results


def _server(url: str, batch_size: int, max_new_tokens: int, window: int, tokenizer: str | None) -> "ServedModel":
    if find_spec("openai") is None:
        raise ValueError(f"model: {url!r} needs the package openai; pip install 'control-llm-runtime[eval]'")
    from training.evaluation.served import ServedModel

    return ServedModel(url, batch_size, max_new_tokens, window, tokenizer)


def rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: one row for each figure, one column for each scale."""
    lines: dict[tuple[str, str], list[str]] = {}
    for measure in results.measures:
        named = f"{measure.suite}/{measure.part}" if measure.part else measure.suite
        lines.setdefault((named, measure.metric), [named, measure.metric, str(measure.count)]).append(_shown(measure))
    return ["suite", "metric", "n", *(f"scale {scale:g}" for scale in results.scales)], list(lines.values())


def _shown(measure: Measure) -> str:
    if measure.low is None or measure.high is None:
        return f"{measure.value:.3f}"
    return f"{measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}]"
