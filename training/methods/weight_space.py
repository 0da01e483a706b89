"""Between the weights of a base and those of its fine-tuned copy: what can be undone of a training afterwards."""

import copy
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from cllm_model.names import split_layer


def wise_ft(base: PreTrainedModel, tuned: PreTrainedModel, share: float) -> PreTrainedModel:
    """Average all weights, `base + share * (tuned - base)` (WiSE-FT, arXiv 2109.01903)."""
    return _moved(base, tuned, lambda name: share)


def lines(base: PreTrainedModel, tuned: PreTrainedModel, first: float) -> PreTrainedModel:
    """Scale what each layer learned, from `first` in the lowest up to 1 in the highest (LiNeS, arXiv 2410.17146).

    Embeddings count as the lowest layer, final norm and head as the highest.
    """
    top = base.config.num_hidden_layers - 1

    def share(name: str) -> float:
        layer, _ = split_layer(name)
        if layer is None:
            return first if "embed_tokens" in name else 1.0
        return first + (1 - first) * layer / max(top, 1)

    return _moved(base, tuned, share)


@torch.no_grad()
def _moved(base: PreTrainedModel, tuned: PreTrainedModel, share: Callable[[str], float]) -> PreTrainedModel:
    """A copy of `base`, each parameter moved towards `tuned` by the share of its name; both of one architecture."""
    moved = copy.deepcopy(base)
    target = dict(tuned.named_parameters())
    for name, parameter in moved.named_parameters():
        parameter.lerp_(target[name].to(parameter), share(name))
    return moved
