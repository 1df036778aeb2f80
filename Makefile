# `make run` and `make test` do all set-up themselves; a second call adds a second or two.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CONFIG ?= jobs/configs/quickstart.yaml

.PHONY: run test test-fast test-ray test-cluster lint docs setup clean

setup: $(READY)

# torch first: another package's range must never choose its build. Exact versions come from the constraints.
$(READY): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "LiveRank needs Python 3.11 or newer; say PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (two to three minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[test,peers]'
	@touch $@

run: $(READY)
	$(BIN)/python -m jobs.pipeline --config $(CONFIG)

test: lint test-fast test-ray test-cluster

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m docs.generate

test-fast: $(READY)
	$(BIN)/python -m pytest -q -n 2 -m "not ray and not cluster"

test-ray: $(READY)
	$(BIN)/python -m pytest -q -m "ray and not cluster"

test-cluster: $(READY)
	$(BIN)/python -m pytest -q -m cluster

clean:
	rm -rf $(VENV) runs *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
