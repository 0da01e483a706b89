"""The training report that lies with a checkpoint: shown to clients only if it is about this very checkpoint."""

import json
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

REPORT = "report.json"


def read_report(model: Path, digest: str) -> dict[str, Any] | None:
    """Return the report in the checkpoint's directory or beside it, None if there is none for this checkpoint.

    Args:
        model: Checkpoint directory.
        digest: The checkpoint's hash; a report whose `checkpoint` differs is about other weights.
    """
    for path in (model / REPORT, model.resolve().parent / REPORT):
        report = _read(path)
        if report is not None and report.get("checkpoint") == digest:
            return report
        if report is not None:
            logger.warning("%s is about checkpoint %s, not %s: not shown", path, report.get("checkpoint"), digest)
    return None


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        report = json.loads(path.read_text())
    except ValueError as error:
        logger.warning("%s is not JSON (%s): not shown", path, error)
        return None
    return report if isinstance(report, dict) else None
