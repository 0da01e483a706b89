"""The demo model's tokenizer: one token per printable ASCII character, and a chat template.

Decoding gives back the text exactly. The template renders the conversation from its last user message on: the demo
model answers every request by itself, and was never trained on a history or on system messages, so both are accepted
and left out rather than allowed to derail it.
"""

from collections.abc import Sequence

from tokenizers import Regex as TokenizersRegex
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>")
CHARACTERS = tuple(chr(code) for code in (*range(32, 127), 9, 10))

CHAT_TEMPLATE = """\
{#- Each request is answered by itself: earlier turns and system messages are accepted but not rendered. -#}
{%- set start = namespace(index=-1) -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}{%- set start.index = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- if start.index < 0 -%}{{- raise_exception('the conversation needs a user message') -}}{%- endif -%}
{%- for message in messages[start.index:] -%}
    {%- if message['role'] == 'user' -%}
        {{- '<|user|>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<|assistant|>' + message['content'] + '<|end|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def character_tokenizer(max_length: int, characters: Sequence[str] = CHARACTERS) -> PreTrainedTokenizerFast:
    """Build the tokenizer of some characters; `max_length` is the model's context length."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *characters))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(TokenizersRegex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=max_length,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
