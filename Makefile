# Everything that CI does, `make` does. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run test test-space check format bench load screenshots readme deploy deploy-plan status logs smoke doctor clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(READY) ## make the virtual environment with everything in it

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(READY) ## start the app on http://127.0.0.1:7860 (PORT=... changes it)
	$(BIN)/python -m space.app

test: $(READY) ## run the whole suite
	$(BIN)/python -m pytest

test-space: $(READY) ## run the suite on exactly what a Space's builder installs
	PY=$$($(BIN)/python -m tests.deploy.environment .pytest_cache/space-venv) && $$PY -m pytest

check: $(READY) ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## put every file into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## measure beside ipykernel, fresh processes and a bare echo, snapshots too; writes bench.json
	$(BIN)/python -m tests.benchmarks

load: $(READY) ## many clients for minutes, answers checked (ARGS="--clients 20 --minutes 30 --kill-every 60 ...")
	$(BIN)/python -m tests.load $(ARGS)

screenshots: $(READY) ## take the pictures of docs/screenshots with a real browser
	$(BIN)/python -m tests.e2e.browser.screenshots

readme: $(READY) ## bring the table of settings in README.md up to date
	$(BIN)/python -m tests.readme

deploy: $(READY) ## put it on a private Space (deploy.toml or ARGS="--hardware ..." say which) and print what LibreChat needs
	$(BIN)/python -m deploy apply $(ARGS)

deploy-plan: $(READY) ## show what `make deploy` would change
	$(BIN)/python -m deploy plan $(ARGS)

status: $(READY) ## what runs on the Space
	$(BIN)/python -m deploy status $(ARGS)

logs: $(READY) ## the Space's log, readable (ARGS="--errors --session ...")
	$(BIN)/python -m deploy logs $(ARGS)

smoke: $(READY) ## try the live Space as LibreChat would use it
	$(BIN)/python -m deploy smoke $(ARGS)

doctor: $(READY) ## examine the live Space and explain what is wrong
	$(BIN)/python -m deploy doctor $(ARGS)

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
