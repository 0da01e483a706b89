"""The retention study: what is kept of a base's skills while it learns a new one, by method, over several bases.

    python benchmarks/retention.py            # run what is not finished yet, then write the tables
    python benchmarks/retention.py --quick    # a few updates of the main set-ups on one base, for CI: no result
    python benchmarks/retention.py --table    # only write the tables of what is finished

Finished runs are lines of benchmarks/results/retention.jsonl and are not run again; the tables stand in
docs/retention.md between two marks. Bases are the outer loop, so that a study cut short compares all methods on fewer
of them. Several processes may share the work: give each its own `--tasks`, or, once the search is done, its own
`--bases`.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from retention_study import plan, results, tables
from retention_study.run import Setup, base_directory, in_process, is_whole
from transformers.utils import logging as transformers_logging

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "retention.jsonl"
REPORT = ROOT / "docs" / "retention.md"
CACHE = Path(tempfile.gettempdir()) / "retention"
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"
QUICK = {"steps": 3, "batch_size": 6, "pool": 64, "rehearsed": 3, "base_steps": 5}


def carry_out(setups: list[Setup], file: Path, cache: Path) -> None:
    """Run what is not finished, after saying what it will cost."""
    finished = results.read(file)
    left = [setup for setup in setups if setup not in finished]
    if not left:
        return
    step_s = measured_step(left[0])
    bases = {base for setup in left if not is_whole(base := base_directory(setup, cache))}
    # An update of a base has twice the examples of one of the study.
    predicted = sum(cost(setup, finished, step_s) for setup in left) + len(bases) * left[0].base_steps * 2 * step_s
    print(
        f"{len(left)} runs of {len(setups)} left, {len(bases)} bases: about {predicted / 60:.0f} CPU minutes",
        flush=True,
    )
    for number, setup in enumerate(left, 1):
        begun = time.monotonic()
        result = in_process(setup, cache)
        results.append(file, setup, result)
        new, old = result["score"][0], tables.old(result)
        print(
            f"{number}/{len(left)} {setup.task} {setup.base} {tables.describe(setup)} {setup.learning_rate:g}: "
            f"new {new:.3f}, originals {old:.3f} of {sum(result['base'][1].values()) / len(result['base'][1]):.3f}, "
            f"{result['cpu_ms_per_step']:.0f} ms, {time.monotonic() - begun:.0f} s",
            flush=True,
        )


def measured_step(setup: Setup) -> float:
    """CPU seconds of one update of full fine-tuning, measured now on an untrained base."""
    probe = replace(setup, method="full", source=None, replayed=0.0, base_steps=1, steps=6)
    with tempfile.TemporaryDirectory() as scratch:
        return in_process(probe, Path(scratch))["cpu_ms_per_step"] / 1000


def cost(setup: Setup, finished: plan.Results, step_s: float) -> float:
    """CPU seconds that a run will take: as its like took, else by the step just measured."""
    like = [r["cpu_seconds"]["all"] for s, r in finished.items() if (s.task, s.name) == (setup.task, setup.name)]
    return like[-1] if like else setup.steps * step_s * (2.0 if setup.source else 1.3) + 10


def write_tables(finished: plan.Results) -> None:
    """Print the tables, and put them between the marks of the report."""
    text = tables.document(finished)
    if not text:
        raise SystemExit("no task's search is finished: the tables stay as they are")
    print(text)
    if REPORT.exists():
        before, _, rest = REPORT.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        REPORT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def quick() -> None:
    """A few updates of the main set-ups of both kinds of task, and their table; the numbers mean nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        file, cache = Path(scratch) / "results.jsonl", Path(scratch)
        for task in plan.SEARCHED:
            middle = {
                (method, source): {"learning_rate": tried[1]}
                for method, tried in plan.LEARNING_RATES.items()
                for source in plan.SOURCES
            }
            setups = [replace(setup, **QUICK) for setup in plan.main(task, 0, middle)]
            carry_out(setups, file, cache)
            print(tables.main_table(tables.by_set_up(results.read(file), setups, middle)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few updates on one base, for CI")
    parser.add_argument("--table", action="store_true", help="only write the tables of what is finished")
    parser.add_argument("--tasks", nargs="+", choices=plan.SEARCHED, default=plan.SEARCHED, help="kinds of task")
    parser.add_argument("--bases", type=int, nargs="+", default=plan.BASES, help="bases to work on")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of finished runs")
    parser.add_argument("--cache", type=Path, default=CACHE, help="directory of trained bases and pools")
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if given.quick:
        quick()
        return
    if not given.table:
        for setups in plan.stages(given.tasks, given.bases, lambda: results.read(given.results)):
            carry_out(setups, given.results, given.cache)
    write_tables(results.read(given.results))


if __name__ == "__main__":
    main()
