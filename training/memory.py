"""An estimate of what a training holds in the memory of one device. Counts tensors; allocates nothing.

In bytes, p being 4 (fp32) or 2 (bf16):

- weights: what trains 4 each; what is frozen p each
- gradients: 4 for each parameter that trains; optimizer: 8, AdamW's two moments
- activations: p for each number that the backward pass needs again. For each token of the micro-batch
  a layer that trains keeps 8H + 2Q + 3K + 4I, a frozen one above the first that trains 4H + 2Q + 2K + 3I, one below
  it nothing; an interpolator and the divergence loss keep 6H in fp32. With checkpointing only the input of each of
  these layers is kept (H), and the numbers of one layer at a time.
- logits: of a rehearsed micro-batch, three times V in fp32 for each of its tokens; TRL computes those of new data in
  pieces, of 32,768 tokens of the vocabulary.

H is the hidden size, I the intermediate size, Q and K the widths of queries and of keys, V the vocabulary. With FSDP
weights, gradients and optimizer are divided by the number of processes, and one layer is held whole; with ZeRO 2
gradients and optimizer are, which has a copy of what trains, 4 more. What fragments, communicates or belongs to the
runtime comes on top.
"""

from dataclasses import dataclass

from transformers import PreTrainedModel

from cllm_model.modeling import DualBranchLayer
from training.distributed import units
from training.recipe import Recipe, Train

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def estimate(model: PreTrainedModel, recipe: Recipe, tokens: int, processes: int) -> Memory:
    """Estimate the memory of a training.

    Args:
        model: The model, on the meta device or any other; `requires_grad` says what trains.
        recipe: How it is trained.
        tokens: Of a micro-batch of one process, padding included.
        processes: How many share the work.
    """
    train = recipe.train
    width = 2 if train.precision == "bf16" else 4
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters()) - trained
    shares = processes if train.sharding != "none" else 1
    weight_shares = processes if train.sharding == "fsdp" else 1
    largest = max(sum(parameter.numel() for parameter in unit.parameters()) for unit in units(model))
    whole = largest * width if weight_shares > 1 else 0
    copied = 4 if train.sharding == "zero2" else 0
    rehearsed = 0
    if recipe.rehearsal is not None:
        sequences = recipe.rehearsal.batch_size / train.accumulation / processes
        rehearsed = round(sequences * recipe.rehearsal.max_tokens)
    return Memory(
        weights=(4 * trained + width * frozen) / weight_shares + whole,
        gradients=4 * trained / shares,
        optimizer=(8 + copied) * trained / shares,
        activations=kept(model, train) * (tokens + rehearsed),
        logits=3 * 4 * model.config.vocab_size * rehearsed + 2 * 4 * min(32_768, model.config.vocab_size) * tokens,
    )


def kept(model: PreTrainedModel, train: Train) -> float:
    """Bytes that the backward pass needs again of each token."""
    config = model.config
    width = 2 if train.precision == "bf16" else 4
    hidden, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = head * config.num_attention_heads, head * config.num_key_value_heads
    of_trained = 8 * hidden + 2 * queries + 3 * keys + 4 * inner
    of_frozen = 4 * hidden + 2 * queries + 2 * keys + 3 * inner
    numbers, layers, merges, below = 0, 0, 0, True
    for layer in model.get_decoder().layers:
        branches = [layer.pretrained_layer, layer.expanded_layer] if isinstance(layer, DualBranchLayer) else [layer]
        trains = [any(parameter.requires_grad for parameter in branch.parameters()) for branch in branches]
        if below and not any(trains):
            continue
        # The frozen branch of the first layer that trains has an input without a gradient.
        recorded = [train for train in trains if train or not below]
        below = False
        numbers += sum(of_trained if train else of_frozen for train in recorded)
        layers += len(recorded)
        merges += isinstance(layer, DualBranchLayer)
    if train.checkpointing:
        numbers = layers * hidden + of_trained
    return numbers * width + merges * 6 * hidden * 4
