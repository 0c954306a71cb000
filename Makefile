# Two commands matter: `make train` and `make test`. Both set up .venv first, once.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

.PHONY: train test lint clean

train: $(READY)
	@$(BIN)/mixed-r1 train $(ARGS)

# Two processes share the cores, so each computes on one; compiled modules are kept for the many that tests start.
test: export OMP_NUM_THREADS := 1
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	rm -rf .venv runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): docker/cpu.lock docker/install_cpu.sh pyproject.toml
	@PYTHON=$(PYTHON) bash docker/install_cpu.sh
	@touch $(READY)
