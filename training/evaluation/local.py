"""Evaluation of a model in memory, by transformers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import cllm_model  # noqa: F401 - registers the model
from cllm_model import checkpoint
from cllm_model.families import FAMILIES
from cllm_model.scale import TRAINED_SCALE
from training.data import token_ids
from training.evaluation.generation import at_scale, complete, padded, padding
from training.evaluation.target import Likelihood, Question, predicted_bytes, windows

_POSITIONS_AT_ONCE = 1024  # logits of a large vocabulary in fp32 are what fills the memory


class LocalModel:
    """A plain or an expanded model; a plain one has the scale 1 only.

    Args:
        model: The model.
        tokenizer: Its tokenizer, with a chat template if conversations are asked.
        batch_size: Sequences at once.
        max_new_tokens: Most tokens of an answer.
        window: Most tokens of a text that are looked at together; the model's context if that is smaller.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        max_new_tokens: int,
        window: int,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.window = min(window, model.config.max_position_embeddings)

    def answers(self, questions: Sequence[Question], scale: float) -> list[str]:
        """Greedy answers, in order."""
        prompts = [self._prompt(question.prompt) for question in questions]
        with at_scale(self.model, scale):
            return complete(
                self.model,
                self.tokenizer,
                prompts,
                self.batch_size,
                self.max_new_tokens,
                lambda index: len(questions[index].answer),
            )

    def _prompt(self, prompt: Any) -> list[int]:
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt)["input_ids"])
        return token_ids(self.tokenizer, prompt)

    @torch.inference_mode()
    def likelihoods(self, texts: Sequence[str], scale: float) -> list[Likelihood]:
        """How likely each text is, in order."""
        encoded = [list(self.tokenizer(text)["input_ids"]) for text in texts]
        cut = [(i, window) for i, tokens in enumerate(encoded) for window in windows(tokens, self.window)]
        cut.sort(key=lambda entry: len(entry[1]))
        nats = [0.0] * len(texts)
        with at_scale(self.model, scale):
            for start in range(0, len(cut), self.batch_size):
                rows = cut[start : start + self.batch_size]
                for (i, _), loss in zip(rows, self._losses([window for _, window in rows]), strict=True):
                    nats[i] += loss
        return [
            Likelihood(nats[i], len(tokens) - 1, predicted_bytes(texts[i], str(self.tokenizer.decode(tokens[:1]))))
            for i, tokens in enumerate(encoded)
        ]

    def _losses(self, rows: list[list[int]]) -> list[float]:
        """-ln of the probability of each row's tokens but its first."""
        batch = {name: tensor.to(self.model.device) for name, tensor in padded(rows, padding(self.tokenizer)).items()}
        logits = self.model(**batch, use_cache=False).logits[:, :-1]  # (B, T - 1, V)
        targets = batch["input_ids"][:, 1:].masked_fill(batch["attention_mask"][:, 1:] == 0, -100)
        total = torch.zeros(len(rows), dtype=torch.float64, device=logits.device)
        for start in range(0, logits.shape[1], _POSITIONS_AT_ONCE):
            part = slice(start, start + _POSITIONS_AT_ONCE)
            losses = F.cross_entropy(logits[:, part].float().transpose(1, 2), targets[:, part], reduction="none")
            total += losses.double().sum(dim=1)
        return total.tolist()

    @contextmanager
    def harness(self, scale: float) -> Iterator[Any]:
        """Within it, the model at `scale` as a model of the lm-evaluation-harness."""
        from lm_eval.models.huggingface import HFLM

        with at_scale(self.model, scale):
            yield HFLM(
                pretrained=self.model,
                backend="causal",
                tokenizer=self.tokenizer,
                batch_size=self.batch_size,
                max_length=self.model.config.max_position_embeddings,
            )


def check_directory(directory: Path, scales: Sequence[float] | None, default: Sequence[float]) -> list[float]:
    """Check a checkpoint's headers, and return the scales to evaluate it at.

    Args:
        directory: A checkpoint, expanded or plain.
        scales: The scales asked for, None for `default`, or for the scale 1 if the checkpoint is plain.
        default: Scales of an expanded checkpoint.

    Raises:
        ValueError: It is not a whole checkpoint, or is plain and another scale than 1 is asked for.
    """
    config = checkpoint.read_config(directory, (*checkpoint.CONTROL_LLM_TYPES, *FAMILIES))
    checkpoint.check_tensors(directory, config)
    if config.model_type in checkpoint.CONTROL_LLM_TYPES:
        return list(default if scales is None else scales)
    if set(scales or ()) - {TRAINED_SCALE}:
        raise ValueError(f"scales: {directory} is a plain checkpoint, which has no dial; allowed: {TRAINED_SCALE:g}")
    return [TRAINED_SCALE]


def load(directory: Path, batch_size: int, max_new_tokens: int, window: int) -> LocalModel:
    """Load a checkpoint in its own dtype, onto the accelerator where there is one."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return LocalModel(model.to(device).eval(), tokenizer, batch_size, max_new_tokens, window)
