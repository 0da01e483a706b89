"""The shipped demo: a small checkpoint with its report and licence, and `cllm demo`, which shows it.

Imports no other package of this project: server and page are started as processes.
"""
