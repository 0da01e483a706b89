"""Text to tokens and back, as the checkpoint's own tokenizer does it; and nothing of a request is ignored."""

import pytest
from transformers import AutoTokenizer

CHAT = [{"role": "user", "content": "hello there"}]


def test_tokens_are_the_tokenizers(http, server):
    tokenizer = AutoTokenizer.from_pretrained(server.model)
    answer = http.post("/tokenize", json={"model": f"{server.name}@0.5", "prompt": "hello there"}).json()
    assert answer["tokens"] == tokenizer("hello there").input_ids and answer["count"] == len(answer["tokens"])
    assert http.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": "hello there"}
    templated = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert http.post("/tokenize", json={"messages": CHAT}).json()["tokens"] == templated


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", '{"prompt": "a", "unknown": 1}', 400),
        ("/tokenize", '{"prompt": "a", "add_special_tokens": "no"}', 400),
        ("/tokenize", '{"prompt": "\\ud800"}', 400),
        ("/tokenize", '{"messages": 5}', 400),
        ("/tokenize", '{"prompt": "a", "model": "other"}', 404),
        ("/detokenize", '{"tokens": ["5"]}', 400),
        ("/detokenize", '{"tokens": [true]}', 400),
        ("/detokenize", '{"tokens": [5], "unknown": 1}', 400),
        ("/detokenize", '{"tokens": [-1]}', 400),
    ],
)
def test_what_is_refused(http, path, body, status):
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status and answer.json()["error"]["code"] == status
