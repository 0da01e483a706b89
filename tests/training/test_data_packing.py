"""Packed rows: through TRL's collator no document sees another, and a loss is that of the documents alone."""

from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import SFTConfig, SFTTrainer

from cllm_model.divergence import Divergence
from tests.tiny_models import VOCABULARY, write_base, write_dual
from training.data.packing import pack
from training.data.rows import IGNORED

LENGTHS = (1, 7, 12, 19, 2, 30, 3, 3, 11, 5, 23, 1)
MAX_LENGTH = 32
FAMILIES: dict[str, dict[str, Any]] = {"llama": {}, "mistral": {"sliding_window": 6}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Plain and trained dual-branch checkpoints, with full and with sliding attention."""
    root = tmp_path_factory.mktemp("packing")
    found = {}
    for family, fields in FAMILIES.items():
        # A usual initial spread: the wide one of these checkpoints makes logits of up to 30, and rounding as large.
        found[family] = write_base(root / family, family=family, initializer_range=0.03, **fields)
        for method in ("lerp", "dlerp"):
            found[f"{family}-{method}"] = write_dual(found[family], root / f"{family}-{method}", method)
    return found


@pytest.fixture(scope="module")
def documents() -> list[dict[str, list[int]]]:
    """Random documents, half of their tokens learned, the first one always (which must not count)."""
    random = np.random.default_rng(0)
    rows = []
    for length in LENGTHS:
        ids = random.integers(3, len(VOCABULARY), length).tolist()
        learned = [True, *(random.random(length - 1) < 0.5)]
        rows.append(
            {"input_ids": ids, "labels": [i if keep else IGNORED for i, keep in zip(ids, learned, strict=True)]}
        )
    return rows


@pytest.fixture(scope="module")
def packed(documents: list[dict[str, list[int]]]) -> Dataset:
    return pack(Dataset.from_list(documents), np.array(LENGTHS), MAX_LENGTH)


def load(path: Path, attention: str = "sdpa") -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(path, attn_implementation=attention, dtype=torch.float32).eval()


def trainer(path: Path, rows: Dataset, directory: Path) -> SFTTrainer:
    """TRL's trainer on rows that are packed already, two of them in a batch."""
    args = SFTConfig(
        output_dir=str(directory),
        packing=True,
        max_length=MAX_LENGTH,
        dataset_kwargs={"skip_prepare_dataset": True},
        per_device_train_batch_size=2,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
    )
    tokenizer = AutoTokenizer.from_pretrained(path)
    return SFTTrainer(model=load(path), args=args, train_dataset=rows, processing_class=tokenizer)


@pytest.fixture(scope="module")
def batch(models: dict[str, Path], packed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The first batch as the trainer's own loader gives it."""
    made = trainer(models["llama"], packed, tmp_path_factory.mktemp("batch"))
    return next(iter(made.get_train_dataloader()))


def spans(rows: Dataset) -> list[tuple[int, int]]:
    """Where the documents of the first two rows stand in the batch."""
    lengths = [length for row in rows.select(range(2)) for length in row["seq_lengths"]]
    return list(pairwise([0, *accumulate(lengths)]))


def logits(model: PreTrainedModel, **inputs: Any) -> Tensor:
    with torch.inference_mode():
        return model(**inputs, use_cache=False).logits[0]


def test_packing_keeps_every_document_and_fills_rows(documents: list[dict[str, list[int]]], packed: Dataset) -> None:
    assert len(packed) == -(-sum(LENGTHS) // MAX_LENGTH)
    found = []
    for row in packed:
        assert len(row["input_ids"]) == len(row["labels"]) == sum(row["seq_lengths"]) <= MAX_LENGTH
        for start, stop in pairwise([0, *accumulate(row["seq_lengths"])]):
            found.append((row["input_ids"][start:stop], row["labels"][start:stop]))
    assert sorted(found) == sorted((row["input_ids"], row["labels"]) for row in documents)


def test_what_the_collator_gives(packed: Dataset, batch: dict[str, Any]) -> None:
    assert "attention_mask" not in batch
    assert len(spans(packed)) > 3
    for start, stop in spans(packed):
        assert batch["position_ids"][0, start:stop].tolist() == list(range(stop - start))
        assert batch["labels"][0, start] == IGNORED


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [family + method for family in FAMILIES for method in ("", "-lerp", "-dlerp")])
def test_no_document_sees_another(
    models: dict[str, Path], packed: Dataset, batch: dict[str, Any], name: str, attention: str
) -> None:
    model = load(models[name], attention)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    together = logits(model, **inputs)
    for start, stop in spans(packed):
        alone = logits(model, input_ids=batch["input_ids"][:, start:stop])
        torch.testing.assert_close(together[start:stop], alone, rtol=0, atol=1e-5)
    # The same rows with a mask, as a collator with padding gives them, do leak: the comparison above can fail.
    leaking = logits(model, **inputs, attention_mask=torch.ones_like(batch["input_ids"]))
    assert (leaking - together).abs().max() > 1e-2


def test_the_loss_and_the_divergence_are_means_over_all_tokens_of_the_documents(
    models: dict[str, Path], packed: Dataset, batch: dict[str, Any], tmp_path: Path
) -> None:
    """Nothing is padding: a long document counts for more than a short one, as in unpacked batches."""
    made = trainer(models["llama-dlerp"], packed, tmp_path)
    model = made.model
    model.model.keep_branches = True
    made_loss = made.compute_loss(model, dict(batch)).item()
    divergence = Divergence("mse", 1.0)
    found = [divergence(branches).item() for branches in model.model.branches.values()]

    reference = load(models["llama-dlerp"])
    reference.model.keep_branches = True
    loss, learned = 0.0, 0
    expected = np.zeros(len(found))
    for start, stop in spans(packed):
        ids, labels = batch["input_ids"][:, start:stop], batch["labels"][0, start + 1 : stop]
        alone = logits(reference, input_ids=ids)
        # The first token of a document is predicted from nothing, though the data says it is to be learned.
        loss += torch.nn.functional.cross_entropy(alone[:-1], labels, ignore_index=IGNORED, reduction="sum").item()
        learned += int((labels != IGNORED).sum())
        expected += [divergence(b).item() * (stop - start) for b in reference.model.branches.values()]
    assert made_loss == pytest.approx(loss / learned, abs=1e-5)
    assert found == pytest.approx((expected / batch["input_ids"].numel()).tolist(), rel=1e-5)
