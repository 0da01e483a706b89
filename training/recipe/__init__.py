"""Recipes: everything a training run depends on, as one typed tree read from YAML.

The only place where a default of training is written. Unknown keys and wrong values are refused with the field, the
value and the choices. Nothing here reads data or touches a model.
"""

from training.recipe.base import Base, Made, Stage
from training.recipe.baselines import Baseline, Baselines
from training.recipe.data import Data, FileSkill, SkillName, Source
from training.recipe.evaluation import During, Evaluation, Example
from training.recipe.load import load
from training.recipe.method import Divergence, Expansion
from training.recipe.recipe import Recipe
from training.recipe.rehearsal import Rehearsal
from training.recipe.section import RecipeError, Section
from training.recipe.train import BaselineTrain, ControlTrain, Train

__all__ = [
    "Base",
    "Baseline",
    "BaselineTrain",
    "Baselines",
    "ControlTrain",
    "Data",
    "Divergence",
    "During",
    "Evaluation",
    "Example",
    "Expansion",
    "FileSkill",
    "Made",
    "Recipe",
    "RecipeError",
    "Rehearsal",
    "Section",
    "SkillName",
    "Source",
    "Stage",
    "Train",
    "load",
]
