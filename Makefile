# `make demo`: real documents to genre labels on this machine.  `make test`: the tests.  `make help`: the rest.
# Needs Python 3.11+ and make. Everything that is installed goes into .venv/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 >/dev/null 2>&1 && python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

# Ray's default differs between a local and a joined cluster, and between releases; here it is always the token.
# Without RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH Ray makes a token of its own in ~/.ray/auth_token.
export RAY_AUTH_MODE := token
export RAY_USAGE_STATS_ENABLED := 0

TESTS ?=
BENCH ?=
RESULTS ?=

.PHONY: help demo test test-all bench results lint format clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

demo: $(VENV)/demo.installed ## Set up, then run the whole pipeline on the sample and name the report
	$(BIN)/python jobs/pipeline.py --config jobs/configs/demo.yaml

test: $(VENV)/develop.installed ## Set up, then run the tests but the slow ones (TESTS="tests/metrics -k official" for some)
	$(BIN)/python -m pytest $(TESTS)

test-all: $(VENV)/develop.installed ## Set up, then run the slow tests too (TESTS as above)
	$(BIN)/python -m pytest -m "not long" $(TESTS)

bench: $(VENV)/develop.installed ## Set up, then measure every hot path beside its alternative (BENCH="ingest archives" for some)
	$(BIN)/python tests/benchmarks/run.py $(BENCH)

results: $(VENV)/develop.installed ## Set up, then make the table of docs/results.md (RESULTS="--emotify FOLDER" for all of Emotify)
	$(BIN)/python tests/experiments/run.py $(RESULTS)

lint: $(VENV)/develop.installed ## Style, formatting, types, and the order of the rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/develop.installed ## Rewrite what ruff can put right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove the set-up, caches and the demo's output
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The set-ups are files: they are made again only when the dependencies change.
$(VENV)/python.checked:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "genre_ray needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	    "Install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch first and alone: the build that pip's own settings name stays, and nothing later pulls in another.
# Last, the scanner of documents is compiled, or the first worker to read one would spend seconds on it.
$(VENV)/demo.installed: pyproject.toml constraints.txt | $(VENV)/python.checked
	@echo "Installing into $(VENV) (some minutes, once)"
	$(INSTALL) torch
	$(INSTALL) --editable .
	$(BIN)/python -c 'from genre_ray.features.essentia.vectors import warm_up; warm_up()'
	touch $@

$(VENV)/develop.installed: pyproject.toml constraints.txt | $(VENV)/demo.installed
	$(INSTALL) --editable '.[test,notebook,lint]'
	touch $@
