"""Evaluation: exact match, perplexity and lm-evaluation-harness tasks at every scale of the dial, with intervals.

What is asked is a suite (`suites`), what answers is a target (`local`: a model in memory, `served`: our server), what
comes of it are measures. `during` scores skills while a model is trained, and `choice` has the rule of what is best.
"""

from training.evaluation.branches import branch_statistics
from training.evaluation.dial import dial_curve, recommend, skill_scores
from training.evaluation.during import SkillChecks
from training.evaluation.generation import answers, at_scale, generate, is_right, score, text_batch
from training.evaluation.local import LocalModel
from training.evaluation.suites import ExactMatch, Perplexity, Suite, evaluate, read_suite
from training.evaluation.target import Likelihood, Question, Target

__all__ = [
    "ExactMatch",
    "Likelihood",
    "LocalModel",
    "Perplexity",
    "Question",
    "SkillChecks",
    "Suite",
    "Target",
    "answers",
    "at_scale",
    "branch_statistics",
    "dial_curve",
    "evaluate",
    "generate",
    "is_right",
    "read_suite",
    "recommend",
    "score",
    "skill_scores",
    "text_batch",
]
