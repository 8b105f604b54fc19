# Each target makes what it needs in a fresh clone: an environment of its own, the install, the run.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test soak lint bench clean

demo: $(VENV)/installed
	rm -rf demo
	$(BIN)/nmf-batch demo --out demo

# worksteal: the tests of a file run in one process as far as they can, so that what they share is made once
SHARED = -q -n 2 --dist worksteal

test: lint
	$(BIN)/pytest $(SHARED)

SOAK = archives checkpoints commands integrity disk edges faults fuzz memory objective_runs real_data chaos sketch \
  state_machine sweep

soak: $(VENV)/tested  # the long forms: harm at every file operation, to every file, at random moments, to every disk
	NMF_BATCH_SOAK=1 $(BIN)/pytest $(SHARED) $(SOAK:%=tests/test_%.py)

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make bench ZARR=celeba.zarr ARCHIVE=celeba.zip
bench: $(VENV)/tested
	$(BIN)/python -m benchmarks.one_pass --zarr $(ZARR)
	$(BIN)/python -m benchmarks.against_sklearn --zarr $(ZARR)
	$(BIN)/python -m benchmarks.prep $(ARCHIVE)

clean:
	rm -rf $(VENV) demo

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev,oracle]'
	touch $@
