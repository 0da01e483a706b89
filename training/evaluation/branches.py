"""What the interpolators of a model do on given text: how much weight, and how far apart the branches are."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from cllm_model.modeling import ControlLLMForCausalLM
from training.data import Chat
from training.evaluation.generation import at_scale, text_batch
from training.losses import mixing


@torch.inference_mode()
def branch_statistics(
    model: ControlLLMForCausalLM, tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat]
) -> dict[int, dict[str, float]]:
    """Mean interpolation weight and alignment of each dual-branch layer on whole conversations."""
    keeps, model.model.keep_branches = model.model.keep_branches, True
    batch = {name: tensor.to(model.device) for name, tensor in text_batch(tokenizer, chats).items()}
    with at_scale(model, 1.0):
        model(**batch, use_cache=False)
    found = mixing(model.model.branches, batch["attention_mask"])
    model.model.keep_branches, model.model.branches = keeps, {}
    return found
