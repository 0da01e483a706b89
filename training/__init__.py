"""Training of Control LLM models: data, losses, trainer, evaluation, recipes."""
