"""What a recipe starts from and what it trains, as configurations; reads no weights."""

from transformers import PreTrainedConfig

from cllm_model import checkpoint
from cllm_model.config import ControlLLMConfig, Expansion
from cllm_model.families import FAMILIES
from cllm_model.placement import choose_sites, place
from training.base import made_config
from training.recipe import Recipe
from training.tokenizer import character_tokenizer


def base_config(recipe: Recipe) -> PreTrainedConfig:
    """The configuration of the base; of one made here, that of the model to be made."""
    if recipe.base.path is None:
        assert recipe.base.make is not None
        return made_config(recipe.base.make, character_tokenizer(recipe.base.make.context))
    return checkpoint.read_config(recipe.base.path, (*checkpoint.CONTROL_LLM_TYPES, *FAMILIES))


def expanded_config(recipe: Recipe) -> ControlLLMConfig:
    """The configuration of the model that a recipe trains.

    Raises:
        ValueError: The recipe's expansion does not fit the base.
    """
    config = base_config(recipe)
    if recipe.base.sequential == "continue":
        assert isinstance(config, ControlLLMConfig)
        return config
    plain = config.base_config() if isinstance(config, ControlLLMConfig) else config
    chosen = recipe.expansion
    sites = chosen.layers if chosen.at is None else chosen.at
    assert sites is not None
    dual, stacked = place(chosen.kind, choose_sites(sites, plain.num_hidden_layers))
    expansion = Expansion(
        dual, chosen.method, chosen.kind, stacked, chosen.initial_factor, chosen.freeze_factor, chosen.norm_alpha
    )
    return ControlLLMConfig.from_base(plain, expansion)
