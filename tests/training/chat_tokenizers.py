"""A character tokenizer under the chat templates of real model families, as TRL ships them."""

import importlib.util
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from training.tokenizer import character_tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As in Qwen3: what the assistant thought is shown in its last message only.
FORGETS_THOUGHTS = CHATML.replace(
    "{{ message.content }}",
    "{% if message.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ message.content }}",
)


def shipped(name: str) -> str:
    """A template of TRL's collection; reading the file is faster than importing TRL."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """A character tokenizer with the special tokens of Llama 3 and ChatML."""
    made = character_tokenizer(512)
    made.add_special_tokens(
        {
            "bos_token": "<|begin_of_text|>",
            "additional_special_tokens": [
                *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"),
            ],
        }
    )
    made.chat_template = template
    return made
