"""The report of a run: `report.json` (`schema`, `file`), and what people read of it (`summary`, `page`, `plots`)."""

from training.report.file import environment, git_commit, now, read, write
from training.report.schema import (
    Answers,
    CheckReport,
    DialPoint,
    ExampleReport,
    LayerReport,
    Question,
    Recommendation,
    Report,
    Scores,
    SkillReport,
    TrainingReport,
    TrunkCacheReport,
)

__all__ = [
    "Answers",
    "CheckReport",
    "DialPoint",
    "ExampleReport",
    "LayerReport",
    "Question",
    "Recommendation",
    "Report",
    "Scores",
    "SkillReport",
    "TrainingReport",
    "TrunkCacheReport",
    "environment",
    "git_commit",
    "now",
    "read",
    "write",
]
