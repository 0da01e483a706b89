"""An update has one gradient, however it is split, and whether its activations are kept or computed again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from cllm_model.divergence import Divergence
from tests.tiny_training import Gradients, disturb, expanded, rows, trainer


def first_update(directory: Path, train: dict[str, Any], method: str = "dlerp", **changes: Any) -> dict[str, Tensor]:
    model = expanded(directory, 2, method, 0.3)
    disturb(model)
    seen = Gradients()
    trainer(model, directory, steps=1, train=train, callbacks=[seen], **changes).train()
    [found] = seen.found
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient.any() for gradient in found.values())
    return found


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_the_examples_of_an_update_differ_in_length() -> None:
    assert len({len(row["input_ids"]) for row in rows(1)}) == 4


@pytest.mark.parametrize("positions", ["all", "prompt", "completion"])
def test_four_micro_batches_of_one_make_the_gradient_of_a_batch_of_four(positions: str, tmp_path: Path) -> None:
    whole = first_update(tmp_path, {}, positions=positions)
    for checkpointing in (False, True):
        split = first_update(tmp_path, {"accumulation": 4, "checkpointing": checkpointing}, positions=positions)
        assert_equal(whole, split)


def test_packed_documents_make_the_gradient_of_the_same_documents_in_rows_of_their_own(tmp_path: Path) -> None:
    documents = rows(1).to_list()
    ids, labels = ([token for document in documents for token in document[name]] for name in ("input_ids", "labels"))
    packed = {"input_ids": ids, "labels": labels, "seq_lengths": [len(one["input_ids"]) for one in documents]}
    apart = first_update(tmp_path, {}, rehearse=False)
    together = first_update(
        tmp_path, {"batch_size": 1}, rehearse=False, packed=True, train_dataset=Dataset.from_list([packed])
    )
    assert_equal(apart, together)


@pytest.mark.parametrize(("method", "weight"), [("dlerp", -1.0), ("slerp", 1.0), ("moe", -1.0), ("proj", 1.0)])
@pytest.mark.parametrize("loss", ["cosine", "cosine_linear", "mse"])
def test_recomputed_activations_keep_the_gradient_of_every_term(
    loss: str, method: str, weight: float, tmp_path: Path
) -> None:
    changes = {"divergence": Divergence(loss, weight), "rehearse": False}
    kept = first_update(tmp_path, {}, method, **changes)
    assert_equal(kept, first_update(tmp_path, {"checkpointing": True}, method, **changes))


def test_the_divergence_alone_reaches_the_layers_through_recomputation(tmp_path: Path) -> None:
    """The difference that the term makes, not only the sum, in which it could be lost."""
    found = {}
    for checkpointing in (False, True):
        with_term = first_update(tmp_path, {"checkpointing": checkpointing}, rehearse=False)
        without = first_update(tmp_path, {"checkpointing": checkpointing}, rehearse=False, divergence=None)
        found[checkpointing] = {name: with_term[name] - without[name] for name in without}
    assert all(change.abs().max() > 1e-5 for name, change in found[True].items() if "down_proj" in name)
    for name, change in found[False].items():
        torch.testing.assert_close(found[True][name], change, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_the_log_shows_means_over_the_update(accumulation: int, tmp_path: Path) -> None:
    """The parts that are logged do not depend on the split either; and they are what the terms are."""
    model = expanded(tmp_path)
    disturb(model)
    run = trainer(model, tmp_path, steps=2, train={"accumulation": accumulation})
    run.train()
    model = expanded(tmp_path)
    disturb(model)
    whole = trainer(model, tmp_path, steps=2)
    whole.train()
    for mine, theirs in zip(run.state.log_history[:2], whole.state.log_history[:2], strict=True):
        for name in ("loss", "divergence", "kl", "gate", "grad_norm", "num_tokens"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name
