"""Tasks of the lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness) at every scale of the dial.

The harness brings its own questions, prompts and metrics; it is the optional extra `eval`.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training.data.formats import DataError
from training.evaluation.target import Target
from training.intervals import RESAMPLES, normal
from training.measure import Measure, SuiteFacts


class Harness:
    """One task or group of tasks.

    Args:
        task: Its name, or a YAML file that defines it.
        limit: Most questions of each task.

    Raises:
        DataError: The harness is not installed, or knows no such task.
    """

    def __init__(self, task: str, limit: int | None) -> None:
        if find_spec("lm_eval") is None:
            raise DataError(
                f"suite: 'lm-eval:{task}' needs the lm-evaluation-harness; pip install 'control-llm-runtime[eval]'"
            )
        from lm_eval.tasks import TaskManager

        self._tasks = TaskManager()
        self._limit = limit
        self._asked = task
        if Path(task).suffix == ".yaml":
            if not Path(task).is_file():
                raise DataError(f"suite: 'lm-eval:{task}': no such file")
            self._asked = str(Path(task).absolute())
        elif task not in self._tasks.all_tasks:
            raise DataError(f"suite: 'lm-eval:{task}' is not a task; `lm-eval ls tasks` lists them")
        self.facts = SuiteFacts(name=Path(task).stem, kind="lm-eval", source=Path(task).name)

    def measure(self, target: Target, scale: float) -> list[Measure]:
        """All metrics of the task, and of each task of a group."""
        from lm_eval import simple_evaluate

        with target.harness(scale) as model:
            found: Any = simple_evaluate(
                model=model,
                tasks=[self._asked],
                task_manager=self._tasks,
                limit=self._limit,
                bootstrap_iters=RESAMPLES,
                log_samples=False,
            )
        counts = {task: entry["effective"] for task, entry in found["n-samples"].items()}
        return [
            measure
            for task, metrics in found["results"].items()
            for measure in self._measures(task, metrics, counts.get(task, sum(counts.values())), scale)
        ]

    def _measures(self, task: str, metrics: Mapping[str, Any], count: int, scale: float) -> list[Measure]:
        """A harness's row `{"acc,none": .5, "acc_stderr,none": .1, …}` as measures."""
        found = []
        for key, value in metrics.items():
            metric, _, chosen = key.partition(",")
            if not chosen or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{chosen}")
            low, high = normal(value, error) if isinstance(error, int | float) else (None, None)
            found.append(
                Measure(
                    suite=self.facts.name,
                    part="" if task == self.facts.name else task,
                    metric=metric if chosen == "none" else f"{metric} ({chosen})",
                    scale=scale,
                    value=value,
                    low=low,
                    high=high,
                    interval=None if low is None else "standard error",
                    count=count,
                )
            )
        return found
