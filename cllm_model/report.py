"""The training report that lies with a checkpoint. Knows where it lies and whose it is, not what is in it.

It is shown, never needed: a broken one, or one that is about other weights, is left out with a warning. Where a
decision hangs on a file (`cllm merge --weights-from`), the file is named, and one that cannot be read is an error.
"""

import logging
from pathlib import Path
from typing import Any

from cllm_model.checkpoint import CheckpointError, checkpoint_hash, read_json

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
        except CheckpointError as error:
            logger.warning("%s: left out", error)
            continue
        digest = digest or checkpoint_hash(model)
        if report.get("checkpoint") == digest:
            return report
        logger.warning("%s is about checkpoint %s, not %s: left out", file, report.get("checkpoint"), digest)
    return None
