# What can be done with this project; `make` alone lists it. Works with GNU make 3.81 and later.

SHELL := /bin/sh
BIN := .venv/bin
READY := .venv/ready
PYTHON :=
FROM :=

KILLS := 500
FLOWS := 20
SEED :=

LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick-tests test-slow faults lint docs bench bench-peers data lock clean

help: ## list the targets
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## make .venv and install what requirements.lock names; PYTHON=… chooses the interpreter

demo: $(READY) ## fetch a small data set of scanned digits; train, evaluate and track a model on it
	@$(BIN)/torchrelay fetch digits
	@$(BIN)/torchrelay train recipes/digits.yaml

test: $(READY) ## lint, and the tests that are quick and need no accelerator
	@$(MAKE) --no-print-directory -j 2 lint quick-tests

quick-tests: $(READY)
	@$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: $(READY) ## the tests that take longer, and those for an accelerator where there is one
	@$(BIN)/pytest -q -m "slow or gpu"

faults: $(READY) ## let runs die at every point, then at random: KILLS=… of trainings, FLOWS=… of whole flows, SEED=…
	@$(BIN)/pytest -q -n 2 -m "" tests/faults
	@$(BIN)/python tests/faults/random_kills.py --kills $(KILLS) --flows $(FLOWS) $(if $(SEED),--seed $(SEED))

lint: $(READY) ## style, layout, types, and who may import whom
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python tests/house.py

docs: .venv-docs/ready ## build the documentation as a site in site/; a broken link or a warning is an error
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --clean

.venv-docs/ready: $(READY) requirements-docs.lock
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-docs
	@$(BIN)/uv pip sync --quiet --python .venv-docs/bin/python --require-hashes requirements-docs.lock
	@touch $@

bench: $(READY) ## measure the training loop and the ingest against the usual ways
	@$(BIN)/python benchmarks/bench.py

bench-peers: .venv-peers/ready ## the same against Lightning and fastai as well, from an environment of their own
	@.venv-peers/bin/python benchmarks/bench.py

.venv-peers/ready: $(READY)
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-peers
	@$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --constraint requirements.lock \
		--no-build-isolation-package torchrelay "setuptools>=77" --editable ".[bench]"
	@touch $@

data: $(READY) ## place tables and image archives of a local folder under data/: make data FROM=DIR
	@test -n "$(FROM)" || { echo "Say which folder: make data FROM=DIR" >&2; exit 2; }
	@$(BIN)/torchrelay fetch --from "$(FROM)"

lock: $(READY) ## choose the newest versions within the bounds of pyproject.toml and write both lock files
	@$(LOCK) --extra dev --output-file requirements.lock pyproject.toml
	@$(LOCK) --group docs --output-file requirements-docs.lock

clean: ## remove the environments, builds and caches; data/ and .torchrelay/ stay
	rm -rf .venv .venv-docs .venv-peers build dist site *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@sh .ci/setup "$(PYTHON)"
	@touch $@
