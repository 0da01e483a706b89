"""Engines with several workers, in a process of their own: `python -m tests.parallel_engine ASKED ANSWERS`.

ASKED is a JSON file, a list of what each engine is asked: {path, options, prompts, scales, tokens}. ANSWERS is written:
for each engine the tokens and the logprobs of each answer.
"""

import dataclasses
import json
import sys
from pathlib import Path

from tests.vllm_engines import generate, start


def main() -> None:
    asked, out = map(Path, sys.argv[1:])
    answers = []
    for each in json.loads(asked.read_text()):
        engine = start(Path(each["path"]), **each["options"])
        found = generate(engine, each["prompts"], each["scales"], tokens=each["tokens"], logprobs=1)
        answers.append([dataclasses.asdict(answer) for answer in found])
    out.write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
