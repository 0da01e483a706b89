"""The training report that lies with a checkpoint. Knows where it lies and whose it is, not what is in it.

It is shown, never needed: a broken one, or one that is about other weights, is left out with a warning. Where a
decision hangs on a file (`cllm merge --weights-from`), the file is named and read by `read_json`, which fails.
"""

import json
import logging
from pathlib import Path
from typing import Any

from cllm_model.checkpoint import checkpoint_hash

logger = logging.getLogger(__name__)
REPORT = "report.json"


def report_of(model: Path, digest: str | None = None) -> dict[str, Any] | None:
    """Return the report in a checkpoint's directory or beside it, None if there is none about this checkpoint.

    Args:
        model: Checkpoint directory.
        digest: The checkpoint's hash, if it is known; computed only where there is a report.
    """
    for file in (model / REPORT, model.resolve().parent / REPORT):
        if not file.is_file():
            continue
        try:
            report = read_json(file)
        except ValueError as error:
            logger.warning("%s: left out", error)
            continue
        digest = digest or checkpoint_hash(model)
        if report.get("checkpoint") == digest:
            return report
        logger.warning("%s is about checkpoint %s, not %s: left out", file, report.get("checkpoint"), digest)
    return None


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object from a file.

    Raises:
        ValueError: There is none.
    """
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: not a JSON object")
    return values
