"""Time and memory of an update: a dual-branch model against full fine-tuning of its base, and against plain HF code.

    python benchmarks/training_cost.py [--rounds 10] [--hidden 256] [--threads 1]

Every second layer is dual-branch (lerp), or the two uppermost ones are; copies and factors train. All kinds run in one
process and take turns, one update each a round; figures are medians of CPU time, for wall time on shared cores is not
stable. "Trunk kept" reads what enters the lowest dual-branch layer from the cache, where all batches were put before:
what that took is printed apart. "Plain HF" is what one would write with transformers alone: decoder layers in pairs,
outputs blended, the divergence left out; once with the frozen weights frozen, once with them merely left out of the
optimizer. Memory is counted, not measured from outside: weights, gradients and AdamW's state, and every tensor that the
backward pass keeps.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from cllm_model.divergence import Divergence
from cllm_model.expand import expand
from cllm_model.modeling import ControlLLMForCausalLM
from training.losses import masked_mean, mean_divergence
from training.trunk_cache import Documents, States, TrunkCache

Loss = Callable[[Tensor], Tensor]
LAYERS = 8


class PlainDual(nn.Module):
    """Two decoder layers side by side and one factor, as one would write it."""

    def __init__(self, layer: LlamaDecoderLayer, config: LlamaConfig, index: int) -> None:
        super().__init__()
        self.pretrained = layer
        self.expanded = LlamaDecoderLayer(config, index)
        self.expanded.load_state_dict(layer.state_dict())
        self.factor = nn.Parameter(torch.zeros(1))
        self.attention_type = getattr(layer, "attention_type", "full_attention")

    def forward(self, hidden_states: Tensor, **kwargs: object) -> Tensor:
        """Both outputs, blended."""
        return torch.lerp(
            self.pretrained(hidden_states, **kwargs), self.expanded(hidden_states, **kwargs), self.factor.sigmoid()
        )


class Kind:
    """One way to train, with its optimizer."""

    def __init__(self, model: nn.Module, loss: Loss, trained: list[nn.Parameter]) -> None:
        self.model = model.train()
        self.loss = loss
        self.trained = trained
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)
        self.seconds: list[float] = []

    def update(self, batch: Tensor) -> None:
        """One update; remembers its CPU time."""
        start = time.process_time()
        self.loss(batch).backward()
        self.optimizer.step()
        self.model.zero_grad()
        self.seconds.append(time.process_time() - start)

    def memory(self, batch: Tensor) -> dict[str, float]:
        """MiB of weights, of gradients and optimizer, and of what the backward pass keeps."""
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss(batch)
        del loss
        learned = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        optimised = sum(p.numel() for p in self.trained)
        whole = sum(p.numel() for p in self.model.parameters())
        found = {
            "weights": 4 * whole,
            "gradients_and_optimizer": 4 * learned + 8 * optimised,
            "activations": sum(kept.values()),
        }
        return {name: round(size / 2**20, 1) for name, size in found.items()}


def causal(model: nn.Module) -> Loss:
    """The cross entropy alone."""
    return lambda batch: model(input_ids=batch, labels=batch, use_cache=False).loss


def with_divergence(model: ControlLLMForCausalLM, kept: States | None = None) -> Loss:
    """The cross entropy and the divergence loss; the layers below the expansion run, or their states are read."""

    def loss(batch: Tensor) -> Tensor:
        found = {} if kept is None else {"trunk_states": kept.of({"input_ids": batch, "attention_mask": batch >= 0})}
        entropy = model(input_ids=batch, labels=batch, use_cache=False, **found).loss
        branches, model.model.branches = model.model.branches, {}
        return entropy + masked_mean(mean_divergence(Divergence("mse", 1.0), branches), torch.ones_like(batch))

    return loss


def kinds(base: Path, scratch: Path, batches: list[Tensor]) -> dict[str, Kind]:
    """Everything that is compared, each with weights of its own; the trunk's states of all batches are made here."""
    expand(base, scratch / "dual", LAYERS // 2, "lerp")
    expand(base, scratch / "upper", [LAYERS - 2, LAYERS - 1], "lerp")

    def full() -> LlamaForCausalLM:
        return AutoModelForCausalLM.from_pretrained(base)

    def dual(name: str = "dual", checkpointing: bool = False) -> ControlLLMForCausalLM:
        model = ControlLLMForCausalLM.from_pretrained(scratch / name)
        model.freeze_pretrained()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return model

    def aligned(kept: bool = False, **which: Any) -> Kind:
        model = dual(**which)
        model.model.keep_branches = True
        states = states_of(model, batches, scratch / "trunk") if kept else None
        return Kind(model, with_divergence(model, states), learning(model))

    def plain(freeze: bool) -> tuple[LlamaForCausalLM, list[nn.Parameter]]:
        model = full()
        for i in range(1, LAYERS, 2):
            model.model.layers[i] = PlainDual(model.model.layers[i], model.config, i)
        trained = [p for name, p in model.named_parameters() if ".expanded." in name or name.endswith(".factor")]
        if freeze:
            model.requires_grad_(False)
            for parameter in trained:
                parameter.requires_grad_(True)
        return model, trained

    def learning(model: nn.Module) -> list[nn.Parameter]:
        return [parameter for parameter in model.parameters() if parameter.requires_grad]

    tuned, without = full(), dual()
    frozen, open_ = plain(freeze=True), plain(freeze=False)
    return {
        "full fine-tuning": Kind(tuned, causal(tuned), learning(tuned)),
        "dual": Kind(without, causal(without), learning(without)),
        "dual, divergence": aligned(),
        "dual, divergence, trunk kept": aligned(kept=True),
        "dual, divergence, checkpointing": aligned(checkpointing=True),
        "upper two dual, divergence": aligned(name="upper"),
        "upper two dual, divergence, trunk kept": aligned(name="upper", kept=True),
        "plain HF dual, frozen": Kind(frozen[0], causal(frozen[0]), frozen[1]),
        "plain HF dual, left out of the optimizer": Kind(open_[0], causal(open_[0]), open_[1]),
    }


def states_of(model: ControlLLMForCausalLM, batches: list[Tensor], directory: Path) -> States:
    """The states of all sequences; says what they took."""
    start = time.process_time()
    documents = Documents(batch.numpy().astype(np.int32) for batch in torch.cat(batches))
    states = TrunkCache(directory, {"data": documents}).open(model, "fp32")["data"]
    took = (time.process_time() - start) / len(batches)
    size = sum(file.stat().st_size for file in directory.iterdir()) / 2**20
    print(f"states below layer {model.model.first_layer}: {took * 1e3:.0f} ms a batch, {size:.1f} MiB in all")
    return states


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=settings.hidden,
        intermediate_size=settings.hidden * 8 // 3,
        num_hidden_layers=LAYERS,
        num_attention_heads=settings.hidden // 32,
        num_key_value_heads=settings.hidden // 32,
    )
    batches = [torch.randint(config.vocab_size, (8, 128)) for _ in range(settings.rounds + 1)]
    with tempfile.TemporaryDirectory() as directory:
        LlamaForCausalLM(config).save_pretrained(Path(directory, "base"))
        compared = kinds(Path(directory, "base"), Path(directory), batches)
    for number, batch in enumerate(batches):
        for kind in compared.values():
            kind.update(batch)
            if number == 0:  # warm-up
                kind.seconds.clear()
    reference = statistics.median(compared["full fine-tuning"].seconds)
    print(f"{'':<42}{'ms':>7}{'/ full':>8}{'min':>7}{'max':>7}   MiB: weights, gradients + optimizer, activations")
    for name, kind in compared.items():
        middle = statistics.median(kind.seconds)
        low, high = min(kind.seconds), max(kind.seconds)
        memory = kind.memory(batches[0])
        print(
            f"{name:<42}{middle * 1e3:>7.0f}{middle / reference:>8.2f}{low * 1e3:>7.0f}{high * 1e3:>7.0f}   "
            + ", ".join(f"{size:.1f}" for size in memory.values())
        )
    print(json.dumps({"torch": torch.__version__, "machine": platform.machine(), **vars(settings)}))


if __name__ == "__main__":
    main()
