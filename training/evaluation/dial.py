"""Scores of skills at every scale of the dial, and the scale that follows from them."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cllm_model.scale import MIN_SCALE, TRAINED_SCALE
from training.data import Chat
from training.evaluation.choice import RULE, Outcome, best, retention
from training.evaluation.generation import score
from training.recipe import Evaluation
from training.report.schema import DialPoint, Recommendation


def skill_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    skills: Mapping[str, Sequence[Chat]],
    settings: Evaluation,
    scale: float = TRAINED_SCALE,
) -> dict[str, float]:
    """Share of right answers of each skill, at one scale."""
    return {
        name: score(model, tokenizer, chats, settings.batch_size, settings.max_new_tokens, scale)
        for name, chats in skills.items()
    }


def dial_curve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    skills: Mapping[str, Sequence[Chat]],
    settings: Evaluation,
) -> list[DialPoint]:
    """Scores of all skills at the recipe's scales."""
    return [
        DialPoint(scale=scale, scores=skill_scores(model, tokenizer, skills, settings, scale))
        for scale in settings.scales
    ]


def recommend(
    points: Sequence[DialPoint], originals: Sequence[str], new: str, floor: float, prompts: int
) -> Recommendation:
    """The best scale by the rule of `training.evaluation.choice`; the base itself, scale 0, is not a candidate.

    Args:
        points: Scores on the validation split, at 0 and at one other scale at least.
        originals: Skills that are to be kept; what the base scores is what they were before.
        new: Skill that was learned.
        floor: Retention that is asked for.
        prompts: Of each skill.
    """
    [base] = [point.scores for point in points if point.scale == MIN_SCALE]
    kept = {skill: base[skill] for skill in originals}
    # The rule gives ties to the first: as trained, if it is among them.
    candidates = sorted(
        (point for point in points if point.scale != MIN_SCALE), key=lambda point: abs(point.scale - TRAINED_SCALE)
    )
    outcomes = [Outcome(point.scores[new], retention(point.scores, kept)) for point in candidates]
    return Recommendation(
        scale=candidates[best(outcomes, floor)].scale,
        rule=RULE.format(floor=floor, first="the scale nearest to 1"),
        prompts=prompts,
        points=list(points),
    )
