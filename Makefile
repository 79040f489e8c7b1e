# `make quickstart` and `make test` need nothing but Python 3.11 and make: they build their own .venv first.
# `make test-long` adds the few tests that wait for nodes and jobs; .ci/run runs both.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= runs/quickstart
JOBS ?= 2
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: quickstart test test-long lint fmt bench clean

quickstart: $(STAMP)
	$(BIN)/ecellm quickstart --out $(OUT)

test: $(STAMP)
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -m "not heavy" -n $(JOBS) --dist loadfile
	$(BIN)/python -m pytest -m "heavy and not long"

test-long: $(STAMP)
	$(BIN)/python -m pytest -m long

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m tests.bench

# DeepSpeed's build script looks for torch, so torch comes first and isolation is off; no operator is compiled here.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt "setuptools>=77" wheel ninja packaging
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0 numpy
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation deepspeed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,offline]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .ruff_cache .mypy_cache .pytest_cache
