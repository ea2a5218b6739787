# GNU make. Everything happens in .venv; nothing outside this directory is changed, except that `make test`,
# run as root on a Debian-like machine, fetches a real Asterisk and a SIP phone (tests/e2e/fetch).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?=
PYTEST_ARGS ?=
RUNS ?= 20
MINUTES ?= 60
CALLS ?= 20
SEED ?= 1
UPGRADE ?=
UV ?= uv>=0.13,<1

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input
HASHED := $(PIP) --require-hashes --no-build-isolation --use-pep517

export PYTHON PYTEST_ARGS

.PHONY: help
help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/.runtime ## one whole call, simulated on both ends; nothing else is needed
	@exec $(BIN)/ari-gemini demo

.PHONY: setup
setup: $(VENV)/.test ## the package and everything to develop it, in .venv

.PHONY: test
test: lint ## lint, then every test; as root on Debian also those on a real Asterisk
	@exec tests/run

.PHONY: lint
lint: setup ## style, types, import contracts, module-to-test map
	@echo '== ruff check';        $(BIN)/ruff check .
	@echo '== ruff format';       $(BIN)/ruff format --check .
	@echo '== mypy --strict';     $(BIN)/mypy
	@echo '== import contracts';  $(BIN)/lint-imports --no-logo
	@echo '== module-to-test map';env -u ARI_GEMINI_REQUIRE_ASTERISK $(BIN)/python -m pytest -q -p no:cacheprovider tests/test_map.py

.PHONY: bench
bench: setup ## resampler and calls, as tables (minutes; wants an idle machine)
	@$(BIN)/python tests/bench/resampler.py
	@$(BIN)/python tests/bench/calls.py

.PHONY: faults
faults: setup ## every fault RUNS=20 times on a real Asterisk, as a table (30 to 40 minutes)
	@tests/e2e/fetch >/dev/null
	@$(BIN)/python tests/e2e/faults.py --runs $(RUNS)

.PHONY: soak
soak: setup ## MINUTES=60 of CALLS=20 at once on a real Asterisk while everything fails (SEED=1)
	@tests/e2e/fetch >/dev/null
	@$(BIN)/python tests/e2e/soak.py --minutes $(MINUTES) --calls $(CALLS) --seed $(SEED)

.PHONY: lock
lock: $(VENV)/.python ## pin what pyproject.toml asks for; UPGRADE=1 takes newer releases
	@$(PIP) '$(UV)'
	@requirements/lock $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## remove .venv, caches and what was built
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist demo-out
	@find ari_gemini tests deploy -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each is younger than what it was made from, so a second `make setup` does nothing.

$(VENV)/.python: requirements/venv
	@requirements/venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.python pyproject.toml requirements/build.lock requirements/runtime.lock
	@echo 'installing ari-gemini into $(VENV)'
	@$(HASHED) -r requirements/build.lock
	@$(HASHED) -r requirements/runtime.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime requirements/test.lock
	@echo 'installing what lint and tests need'
	@$(HASHED) -r requirements/test.lock
	@touch $@
