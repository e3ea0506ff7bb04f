# Each target does all its own set-up: a virtual environment in .venv with the versions of
# constraints.txt. PYTHON=... chooses the interpreter for a new one (3.11 or newer), ARGS=... is
# passed on.

.NOTPARALLEL:
.PHONY: demo test check lint format types imports bench soak clean

VENV := .venv
BIN := $(VENV)/bin
ARGS :=
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

# One compute thread per process: several processes share the cores, and results repeat.
export OPENBLAS_NUM_THREADS := 1

# A test of a cluster starts some ten processes: they are not to compile the program again each.
unexport PYTHONDONTWRITEBYTECODE

demo: $(VENV)/.runtime
	@$(BIN)/shardctl demo $(ARGS)

# Tests with real clusters have the machine to themselves; the others share its cores.
test: $(VENV)/.dev
ifeq ($(ARGS),)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore tests/cluster
	@$(BIN)/python -m pytest -q tests/cluster
else
	@$(BIN)/python -m pytest -q $(ARGS)
endif

check: lint format types imports

lint: $(VENV)/.dev
	@$(BIN)/ruff check -q .

format: $(VENV)/.dev
	@$(BIN)/ruff format -q --check . || { echo "mend with: $(BIN)/ruff format ." >&2; exit 1; }

types: $(VENV)/.dev
	@$(BIN)/mypy --no-error-summary

imports: $(VENV)/.dev
	@$(BIN)/python -m pytest -q tests/test_imports.py tests/test_packaging.py

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks all $(ARGS)

soak: $(VENV)/.dev
	@$(BIN)/python -m tests.soak $(ARGS)

clean:
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What running needs; then, on top, what developing needs.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" sh .ci/venv $(VENV)
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@
