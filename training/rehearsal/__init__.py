"""Self-rehearsal: a model writes requests and answers of its own, so that no old data has to be kept.

`build` lets the teacher answer requests and keeps its predictions on disk; `Pool` hands them out to a training, which
then never runs the teacher again.
"""

from training.rehearsal.build import build
from training.rehearsal.pool import Pool
from training.rehearsal.quality import Quality
from training.rehearsal.requests import read_prompts
from training.rehearsal.sampling import sample

__all__ = ["Pool", "Quality", "build", "read_prompts", "sample"]
