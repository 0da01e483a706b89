"""The base model's tokenizer, checked before anything expensive."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.data.formats import DataError

# transformers makes an empty tokenizer of a model type's default class where none of them is there.
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


def load_tokenizer(base: Path, chat_template: Path | None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base checkpoint.

    Args:
        base: The checkpoint's directory.
        chat_template: A Jinja file that replaces its chat template.

    Raises:
        DataError: There is no tokenizer, it has no end-of-text token, or the template cannot be read.
    """
    if not any((base / name).exists() for name in _FILES):
        raise DataError(f"{base}: no tokenizer in it ({', '.join(_FILES)}); copy the base model's files there")
    tokenizer = AutoTokenizer.from_pretrained(base)
    if tokenizer.eos_token_id is None:
        raise DataError(f"{base}: its tokenizer has no eos_token: no document could be ended")
    if chat_template is not None:
        try:
            tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"data.chat_template = {str(chat_template)!r}: {error}") from error
    return tokenizer
