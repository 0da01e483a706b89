"""`transformers serve` for Control LLM checkpoints: its command line, with our classes known to it."""

import transformers
from transformers.cli.transformers import app

from cllm_model.modeling import ControlLLMForCausalLM  # importing cllm_model registers the classes

transformers.ControlLLMForCausalLM = ControlLLMForCausalLM  # it looks for the architecture by name, and only there

if __name__ == "__main__":
    app()
