# make demo | test | check | bench: each sets itself up on first use and reuses that afterwards.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test check bench lock clean

help:
	@echo "make demo [DATA=folder]  the worked case, from training to the report (about 5 minutes)"
	@echo "make test                all tests"
	@echo "make check               style, types, room rules"
	@echo "make bench [PARTS='zoo fuzz']  benchmarks, all or some; results go to docs/benchmarks.md by hand"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "liftgate needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(VENV) (once, a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,client,hf,openvino,mlperf]'
	@touch $(READY)

demo: $(READY)
	@$(BIN)/liftgate demo $(if $(DATA),--data '$(DATA)')

test: $(READY)
	@$(BIN)/python -m pytest

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; ln -s "$(CURDIR)" "$$folder/liftgate"; \
	MYPYPATH="$$folder" $(BIN)/mypy --strict --namespace-packages --explicit-package-bases -p liftgate

bench: $(READY)
	@$(BIN)/python -m liftgate.bench $(PARTS)

# Rewrites constraints.txt from a fresh environment with every extra.
lock:
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; $(PYTHON) -m venv "$$folder/v"; \
	"$$folder/v/bin/python" -m pip install --quiet torch==2.13.0; \
	"$$folder/v/bin/python" -m pip install --quiet '.[dev,client,hf,openvino,mlperf]'; \
	{ echo "# Every version of a known-good environment (all extras). Rewritten by \`make lock\`."; \
	"$$folder/v/bin/python" -m pip freeze --all --exclude liftgate --exclude pip | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	@rm -rf $(VENV) build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache
