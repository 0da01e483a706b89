"""Whether a training keeps what the frozen layers below the expansion make of its texts.

The trunk, all layers below the lowest one that learns, makes the same of a text whenever the training comes by it. The
recipe says whether that is kept on disk, or leaves it to the arithmetic of `decide`. How: `training.trunk_cache`.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cllm_model.config import ControlLLMConfig
from cllm_model.modeling import ControlLLMForCausalLM
from training import processes
from training.architecture import expanded_config
from training.recipe import Recipe, RecipeError
from training.trunk_cache import Visits

log = logging.getLogger(__name__)
GIB = 2**30
WORTH = 0.05
"""Share of the work on a source's tokens that `auto` wants to be spared."""
ROOM = 0.25
"""Share of the free disk that `auto` takes for a source; there are two, and checkpoints need room as well."""


@dataclass(frozen=True)
class Choice:
    """Whether the states of one source are cached, and why."""

    cached: bool
    reason: str

    def __str__(self) -> str:
        return f"{'cached' if self.cached else 'not cached'}: {self.reason}"


def check(recipe: Recipe) -> None:
    """Refuse `always` where there is nothing to cache, or where what is cached would not be what is computed.

    Raises:
        RecipeError: names the reason.
    """
    if recipe.train.trunk_cache == "always" and (reason := obstacle(expanded_config(recipe), recipe)):
        raise RecipeError(f"train.trunk_cache = 'always': {reason}; use 'auto' or 'never'")


def obstacle(config: ControlLLMConfig, recipe: Recipe) -> str | None:
    """Why the states below a recipe's expansion cannot be cached; None if they can."""
    if config.dual.first_layer == 0:
        return "layer 0 is expanded, no frozen layer is below it"
    if dropout := getattr(config, "attention_dropout", 0.0):
        return f"the base's attention_dropout is {dropout}, so its layers make something else of a text each time"
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "longrope":
        return "the base's rope_type is 'longrope', so a text's states hang on the longest text beside it"
    if recipe.divergence.positions == "published":
        return "divergence.positions 'published' counts padding, whose states are not kept"
    if recipe.train.sharding != "none":
        return f"train.sharding is {recipe.train.sharding!r}, and the cache is for models that are not sharded"
    return None


def settle(
    model: ControlLLMForCausalLM, recipe: Recipe, sources: Mapping[str, Visits], directory: Path
) -> dict[str, Choice]:
    """Choose for a run, once: a resumed run finds less room on the disk, and must compute as the unbroken one does.

    Raises:
        RecipeError: The recipe says `always`, and the disk is too small.
    """
    file = directory / "trunk.json"
    with processes.first_before_others():
        if not file.exists():
            chosen = choose(model, recipe, sources, directory)
            beside = file.with_suffix(".part")
            beside.write_text(json.dumps({name: asdict(choice) for name, choice in chosen.items()}))
            beside.replace(file)
    found = {name: Choice(**values) for name, values in json.loads(file.read_text()).items()}
    for name, choice in found.items():
        log.info("trunk cache, %s: %s", name, choice)
    return found


def choose(
    model: ControlLLMForCausalLM, recipe: Recipe, sources: Mapping[str, Visits], directory: Path
) -> dict[str, Choice]:
    """Decide for each source of a training.

    Args:
        model: What is trained, on any device; `requires_grad` says what learns.
        recipe: How.
        sources: Name -> what the training goes through.
        directory: Where the states would be, or will be once it exists.

    Raises:
        RecipeError: The recipe says `always`, and the disk is too small.
    """
    mode = recipe.train.trunk_cache
    if mode == "never":
        return dict.fromkeys(sources, Choice(False, "the recipe says never"))
    if reason := obstacle(model.config, recipe):
        return dict.fromkeys(sources, Choice(False, reason))
    share = trunk_share(model)
    if mode == "auto" and share < WORTH:
        return dict.fromkeys(sources, Choice(False, f"the layers below the expansion do {share:.1%} of the work"))
    number = 4 if recipe.train.precision == "fp32" else model.model.embed_tokens.weight.element_size()
    width = model.config.hidden_size * number
    free, size = _free(directory), width * sum(tokens for tokens, _ in sources.values())
    if mode == "always" and size > free:
        raise RecipeError(
            f"train.trunk_cache = 'always': {' and '.join(sources)} would take {_room(size, free)}; "
            "use 'auto' or 'never'"
        )
    return {name: decide(mode, share, times, tokens * width, free) for name, (tokens, times) in sources.items()}


def decide(mode: Literal["auto", "always"], share: float, times: float, size: float, free: int) -> Choice:
    """Decide for one source.

    Without the cache the trunk runs at every visit of a token, with it once. That spares ``share * (1 - 1 / times)`` of
    the work; reading and writing are not counted, nor is what attention does beyond its weights.

    Args:
        mode: `auto` wants a twentieth of the work spared in a quarter of the free disk; `always` any of both.
        share: The trunk's share of the work on a token, see `trunk_share`.
        times: How often the training comes by a token.
        size: Bytes that the states take.
        free: Bytes that are free on the disk.
    """
    spared = share * (1 - 1 / times)
    room = _room(size, free)
    facts = f"a token is visited {times:.3g} times, the cache spares {spared:.1%} of the work on it and takes {room}"
    if mode == "always":
        return Choice(True, f"the recipe says always; {facts}")
    if spared < WORTH:
        return Choice(False, f"{facts}; worth it from {WORTH:.0%}")
    if size > ROOM * free:
        return Choice(False, f"{facts}; at most {ROOM:.0%} of it may be taken")
    return Choice(True, facts)


def _room(size: float, free: int) -> str:
    return f"{size / GIB:.3g} GiB of {free / GIB:.3g} GiB of free disk"


def trunk_share(model: ControlLLMForCausalLM) -> float:
    """The trunk's share of the work on a token, in multiplications by weights.

    A weight of the trunk is used once, in the forward pass; one above it twice, for the gradient of its input too; one
    that learns a third time, for its own gradient.
    """
    layers, first = model.model.layers, model.model.first_layer
    trunk = sum(weight.numel() for weight in layers[:first].parameters())
    above = [*layers[first:].parameters(), *model.lm_head.parameters()]
    return trunk / (trunk + sum(weight.numel() * (3 if weight.requires_grad else 2) for weight in above))


def _free(directory: Path) -> int:
    """Bytes that are free where a directory is, or will be."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free
