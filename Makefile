# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# One thread for each test process: two processes with two threads each would wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

.PHONY: demo test test-slow test-browser test-fuzz test-random lint types install clean

demo: $(VENV)/demo-installed
	$(BIN)/python examples/demo.py

test: lint types
	$(PYTEST) -m "not slow and not browser"

# Minutes each: exports of every class, compiled engines, a whole manifest.
test-slow: $(VENV)/dev-installed
	$(PYTEST) -m slow

# The server's page in headless Chromium: apt-get install chromium.
test-browser: $(VENV)/dev-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

# The server against made-up requests and broken audio: minutes.
test-fuzz: $(VENV)/dev-installed
	UNISPEECH_FUZZ=500 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/serving/test_fuzz.py

# The properties by examples that no run had before.
test-random: $(VENV)/dev-installed
	HYPOTHESIS_PROFILE=random $(PYTEST) -m "hypothesis and not slow"

lint: $(VENV)/dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev-installed
	$(BIN)/mypy

install: $(VENV)/dev-installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: its constrained version is the CPU build where one is offered, and nothing
# that follows may replace it with a build that brings gigabytes of GPU libraries.
$(VENV)/demo-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable '.[draw]'
	touch $@

$(VENV)/dev-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build
