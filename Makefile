# Everything from nothing: each target makes the virtual environment that it needs.
#   make demo   train on the embedded digits, write a report, predict ten held-out images
#   make quick  unit tests of everything, in a minute
#   make test   all tests
#   make lint   ruff and mypy

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo quick test lint clean

demo: $(VENV)/.installed
	$(BIN)/residua demo

quick: $(VENV)/.tested-with
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto -m "not slow"

test: $(VENV)/.tested-with
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.tested-with
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist src/*.egg-info

# torch comes first and by itself: a range alone would take the newest build, with gigabytes of CUDA
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt torch setuptools
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable .
	touch $@

$(VENV)/.tested-with: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[test,lint]'
	touch $@
