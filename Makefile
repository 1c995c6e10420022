# `make demo` and `make test` do everything, set-up included; see README.md for the plain pip equivalents.
# Needs Python 3.11 or newer, make and a C++ compiler. Everything else comes from the package index into .venv.

PYTHON ?= python3
PIP_QUIET ?= -q
# The CUDA kernels take a minute to compile, and nothing here runs them from the library: their tests build their own.
# `pip install .` builds them where nvcc is found.
export ONNXQ_CUDA ?= OFF
BIN := .venv/bin
READY := .venv/.ready
NATIVE := $(shell find kernels -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name 'CMakeLists.txt' -o -name '*.cmake')
MODELS := $(if $(ONNXQ_MODELS),$(ONNXQ_MODELS),$(HOME)/.cache/onnxq-models)
MINILM := $(MODELS)/minilm/all_minilm_l6_v2_fp32.onnx

.PHONY: demo test test-cuda test-all setup lint clean help

help:
	@echo 'make demo      convert a real model, verify it, show what was gained (under 4 minutes)'
	@echo 'make test      set up and run the tests (under 10 minutes)'
	@echo 'make test-all  the rest: public models, sanitizers, everything that takes long or needs system packages'
	@echo 'make test-cuda all tests of the CUDA kernels, on the CPU (needs nvcc, no GPU)'
	@echo 'make lint      ruff and mypy --strict'

setup: $(READY)

$(READY): pyproject.toml $(NATIVE)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "onnxq needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_QUIET) --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install $(PIP_QUIET) --editable '.[models]' --group dev
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m benchmarks.models fetch minilm
	$(BIN)/onnxq convert $(MINILM) -o build/minilm.onnxq.onnx --overwrite --bench \
	    --data benchmarks.models.data:minilm_texts --report build/minilm.report.json
	@echo
	@echo 'The model is build/minilm.onnxq.onnx. Next: README.md, "Your own model".'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(READY) lint
	$(BIN)/python -m pytest -m 'not suite and not slow'

test-cuda: $(READY)
	$(BIN)/python -m pytest tests/kernels/cuda

test-all: $(READY)
	$(BIN)/python -m pytest -m 'suite or slow'

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
