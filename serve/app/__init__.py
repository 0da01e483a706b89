"""What is added to vLLM's server. Runs in the server's process, where vllm is imported already."""
