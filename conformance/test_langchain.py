"""langchain's own suite for chat models, with its OpenAI class on our server. What the demo cannot do is left out."""

import json
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from conformance.conftest import KEY


class TestChatOpenAI(ChatModelIntegrationTests):
    """Each property that is false skips tests; the reason that is printed is langchain's."""

    @pytest.fixture(autouse=True)
    def _serve(self, server):
        self.server = server

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.server.name, "base_url": self.server.url, "api_key": KEY, "stream_usage": True}

    @property
    def model_override_value(self) -> str:
        return f"{self.server.name}:base"

    @property
    def has_tool_calling(self) -> bool:
        return False  # the demo's template renders no tools

    @property
    def has_tool_choice(self) -> bool:
        return False

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        """The demo would never close a string: what must be right is the shape, so the end of a string is preferred."""
        vocabulary = json.loads((self.server.model / "tokenizer.json").read_text())["model"]["vocab"]
        return {"logit_bias": {vocabulary['"']: 50, vocabulary[" "]: -50, vocabulary["\n"]: -50, vocabulary["\t"]: -50}}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @pytest.mark.xfail(reason="the demo cannot follow a prompt that asks for keys, as JSON mode has to", strict=True)
    def test_json_mode(self, model):
        super().test_json_mode(model)

    @pytest.mark.xfail(reason="schemas of pydantic 1 are sent as tools, for which the demo has no parser", strict=True)
    def test_structured_output_pydantic_2_v1(self, model):
        super().test_structured_output_pydantic_2_v1(model)
