"""Serving: vLLM's own OpenAI server for one Control LLM checkpoint, under two model ids and one copy of the weights.

`settings` and `ids` say what is asked for, `preflight` refuses bad input before anything heavy starts, `launch` starts
vLLM, and `app` is what is added to vLLM's server. Imports `cllm_model`, never `training` or `ui`.
Importing this package imports nothing else.
"""
