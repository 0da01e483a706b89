"""Self-rehearsal: where requests come from, what is kept of the answers, and when they are not fit for it."""

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tests.tiny_models import write_base
from training import data
from training.losses import masked_mean, pool_kl
from training.recipe import RecipeError, Rehearsal
from training.rehearsal import Pool, Quality, build, sample
from training.rehearsal.requests import frame
from training.rehearsal.sampling import Sampled


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("rehearsal") / "base", max_position_embeddings=64)


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Its template closes every turn with the end token, as those of Llama 3 and ChatML do."""
    found = AutoTokenizer.from_pretrained(base)
    found.chat_template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}</s>{% endfor %}a:"
    return found


@pytest.fixture(scope="module")
def teacher(base: Path) -> PreTrainedModel:
    """A model that ends about one token in ten, so that most of what it writes comes to an end."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    with torch.no_grad():
        model.lm_head.weight[:] *= 0.1
    bias = torch.zeros(model.config.vocab_size).index_fill(0, torch.tensor([2]), math.log(10))
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + bias)
    return model


def settings(**changes: Any) -> Rehearsal:
    return Rehearsal(**{"sequences": 24, "batch_size": 8, "max_tokens": 40, "top_k": 8, **changes})


@pytest.fixture(scope="module")
def pool_file(teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: Any) -> Path:
    file = tmp_path_factory.mktemp("pool") / "pool.safetensors"
    build(teacher, tokenizer, settings(), 0, file)
    return file


def test_the_three_sources_fill_the_chat_templates_frame(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Sampled requests start where a user's text does; given ones stand between opening and answer, in turn."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one"}\n\n{"prompt": "two"}\n')
    found = sample(
        teacher,
        tokenizer,
        settings(sources=["sampled", "random", "file"], file=file, alphabet="xyz", random_tokens=(2, 4)),
        seed=0,
    )
    prompts = [tokenizer.decode(s.tokens[: len(s.tokens) - s.written]) for s in found[:6]]
    assert prompts[0::3] == ["u:", "u:"]
    for text in prompts[1::3]:
        assert text.startswith("u:") and text.endswith("</s>a:") and 2 <= len(text) - 8 <= 4
        assert set(text[2:-6]) <= set("xyz")
    assert sorted(prompts[2::3]) == ["u:one</s>a:", "u:two</s>a:"]


def test_a_request_that_ends_like_an_answer_is_answered_too(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The model stops behind its own request: what follows is the template's, then its answer."""
    found = [tokenizer.decode(s.tokens) for s in sample(teacher, tokenizer, settings(), seed=0) if s.ended]
    assert len(found) >= 24
    assert all(re.fullmatch(r"u:.+</s>a:.*</s>", text, re.DOTALL) and text.count("</s>") == 2 for text in found)


def test_a_request_without_an_answer_is_not_whole(
    base: Path, teacher: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a template that the model itself must go on with; a base trained on answers only ends without doing so."""
    plain = AutoTokenizer.from_pretrained(base)
    plain.chat_template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}a:"
    written = plain(["one;a:two</s>", "one</s>xxxxxx", "one;a:twothre"], add_special_tokens=False)["input_ids"]
    monkeypatch.setattr("training.rehearsal.sampling._AT_ONCE", 3)
    monkeypatch.setattr(
        "training.rehearsal.sampling.generate",
        lambda model, tokenizer, ids, mask, **given: torch.cat([ids, torch.tensor(_even(written))], dim=1),
    )
    found = sample(teacher, plain, settings(sequences=1), seed=0)
    assert [s.ended for s in found] == [True, False, False]
    assert [plain.decode(s.tokens) for s in found] == ["u:one;a:two</s>", "u:one</s>", "u:one;a:twothre"]


def _even(rows: list[list[int]]) -> list[list[int]]:
    """Rows of one length, filled up as `generate` does."""
    width = max(map(len, rows))
    return [row + [0] * (width - len(row)) for row in rows]


def test_a_tokenizer_without_a_chat_template_starts_documents(base: Path) -> None:
    plain = AutoTokenizer.from_pretrained(base)
    plain.chat_template = None
    assert frame(plain) == ([1], [])
    plain.bos_token = None
    assert frame(plain) == ([2], [])


def test_the_pool_keeps_the_teachers_predictions(teacher: PreTrainedModel, pool_file: Path) -> None:
    """Against a forward pass over the batch itself: the eight most probable tokens and the mass of the others."""
    batch = Pool(pool_file, 8, 1, 0, seed=0).batch(0, 0)
    logits = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    probabilities = logits.softmax(dim=-1)
    top = probabilities.topk(8, dim=-1).values
    mask = batch["attention_mask"].bool()
    torch.testing.assert_close(batch["top_logprobs"].exp()[mask], top[mask], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(batch["rest_logprobs"].exp()[mask], 1 - top.sum(-1)[mask], atol=1e-3, rtol=1e-3)
    kept = probabilities.gather(-1, batch["top_ids"])
    torch.testing.assert_close(kept[mask], top[mask], atol=1e-5, rtol=1e-5)


def test_a_pool_of_all_tokens_gives_the_whole_divergence(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """KL(teacher || student) from the pool against torch's own on both models' logits; the teacher's own is 0."""
    whole = tmp_path / "whole"
    build(teacher, tokenizer, settings(top_k=1000), 0, whole)
    some = tmp_path / "some"
    build(teacher, tokenizer, settings(top_k=8), 0, some)
    batch = Pool(whole, 8, 1, 0, seed=0).batch(3, 0)
    mask = batch["attention_mask"]
    logits = teacher(input_ids=batch["input_ids"], attention_mask=mask).logits
    student = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    reference = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(logits=student)
    )
    found = masked_mean(pool_kl(batch, student), mask)
    assert found.item() == pytest.approx(masked_mean(reference, mask).item(), rel=1e-3)
    assert masked_mean(pool_kl(batch, logits), mask).item() == pytest.approx(0, abs=1e-5)
    merged = masked_mean(pool_kl(Pool(some, 8, 1, 0, seed=0).batch(3, 0), student), mask)
    assert 0.1 * found.item() < merged.item() < found.item()


def test_a_batch_follows_from_its_number_and_its_parts_make_it_up(pool_file: Path) -> None:
    """What a resumed run asks for is what the unbroken one got, and splitting an update changes nothing in it."""

    def rows_of(batch: dict[str, torch.Tensor]) -> list[list[int]]:
        found = zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True)
        return [row[mask].tolist() for row, mask in found]

    whole = Pool(pool_file, 8, 1, 0, seed=5)
    split = Pool(pool_file, 8, 4, 0, seed=5)
    parts = {part: rows_of(split.batch(7, part)) for part in (3, 1, 0, 2)}
    rows = [row for part in range(4) for row in parts[part]]
    assert rows == rows_of(whole.batch(7, 0))
    assert [len(row) for row in rows] == sorted(map(len, rows))
    assert rows != rows_of(whole.batch(8, 0))


@pytest.mark.parametrize(
    ("batch_size", "parts", "named"), [(6, 4, "6 cannot be split into 4"), (48, 1, "48 is larger than the pool of 24")]
)
def test_a_pool_that_cannot_fill_its_batches_is_refused(
    pool_file: Path, batch_size: int, parts: int, named: str
) -> None:
    with pytest.raises(ValueError, match=f"rehearsal.batch_size: {named}"):
        Pool(pool_file, batch_size, parts, 0, seed=0)


def test_a_pool_that_cannot_be_written_leaves_the_old_one(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pool"
    file.write_text("whole")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("training.rehearsal.pool.save_file", full)
    with pytest.raises(OSError, match="no space"):
        build(teacher, tokenizer, settings(), 0, file)
    assert file.read_text() == "whole"


def test_samples_are_shown_and_noise_is_warned_of(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A base that never ends what it writes: the samples are in the log, then the warning, then the refusal."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits.index_fill(-1, torch.tensor([2]), -1e4))
    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError, match="only 0 of"):
        build(model, tokenizer, settings(max_tokens=4), 0, tmp_path / "pool")
    assert sum(message.startswith("rehearsal: 'u:") for message in caplog.messages) == 8
    assert any("did not end within 4 tokens; they are left out" in message for message in caplog.messages)
    assert any("only 0% of the sequences are whole (expected 50%" in message for message in caplog.messages)
    assert not (tmp_path / "pool").exists()


def test_quality_counts_ends_copies_and_repetitions() -> None:
    def written(text: str, ended: bool = True) -> Sampled:
        return Sampled([99, *map(ord, text)], len(text), ended)

    good = Quality.of([written("abcdefg"), written("hijklmn")])
    assert good == Quality(ended=1.0, distinct=1.0, repeated=0.0)
    assert good.warnings() == []
    # Of the five 4-token runs in "abababab" two differ.
    loops = Quality.of([written("abababab", ended=False), written("abababab", ended=False)])
    assert loops == Quality(ended=0.0, distinct=0.5, repeated=pytest.approx(0.6))
    assert len(loops.warnings()) == 2
    assert len(Quality.of([written("xy")] * 5).warnings()) == 1


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "prompts.jsonl:2"),
        ('{"text": "x"}', 'prompts.jsonl:2: expected {"prompt"'),
        ('{"prompt": ""}', 'prompts.jsonl:2: expected {"prompt"'),
    ],
)
def test_a_broken_prompt_file_is_refused_by_line(
    line: str, named: str, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "fine"}) + "\n" + line + "\n")
    with pytest.raises(data.DataError) as refused:
        sample(teacher, tokenizer, settings(sources=["file"], file=file), seed=0)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sources": ["file"]}, "`file`"),
        ({"file": "x"}, "`file`"),
        ({"sources": []}, "sources"),
        ({"sources": ["sampled", "sampled"]}, "each once"),
        ({"alphabet": "abc"}, "`alphabet`"),
        ({"random_tokens": (1, 2)}, "`random_tokens`"),
        ({"sources": ["random"], "random_tokens": (4, 2)}, "fewest <= most"),
    ],
)
def test_settings_without_an_effect_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        settings(**changes)


def test_an_alphabet_that_the_tokenizer_lacks_is_refused(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(RecipeError, match="rehearsal.alphabet = ''"):
        sample(teacher, tokenizer, settings(sources=["random"], alphabet=""), seed=0)
