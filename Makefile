# Everything from nothing: each target makes the virtual environment that it needs.
#   make demo   train on the embedded digits, write a report, predict ten held-out images
#   make quick  unit tests of everything, in a minute
#   make test   all tests
#   make lint   ruff and mypy

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# not compiled: of 14,000 files a third is ever imported, and Python keeps what it compiles then
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile --constraint constraints.txt
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo quick test lint clean

demo: $(VENV)/.installed
	$(BIN)/residua demo

quick: $(VENV)/.tested-with
	$(PYTEST) -m "not slow"

test: $(VENV)/.tested-with
	$(PYTEST)

lint: $(VENV)/.tested-with
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist src/*.egg-info

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	touch $@

# beside a target that needs the tools too, it waits: two pip at once would disturb each other
$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.made $(if $(filter quick test lint,$(MAKECMDGOALS)),$(VENV)/.tested-with)
	$(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/.tested-with: pyproject.toml constraints.txt $(VENV)/.made
	$(PIP) --no-build-isolation --editable '.[test,lint]'
	touch $(VENV)/.installed $@
