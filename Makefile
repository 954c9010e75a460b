# `make demo` and `make test` are all that a newcomer needs. Each makes .venv first, and does that again only when
# pyproject.toml, requirements.lock or the accelerator changed; from then on nothing here needs a network.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# A tree that was moved or copied holds an environment that points to the old place.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(shell rm -f $(STAMP))
endif

# The tests start Python a thousand times; where the environment forbids to keep bytecode, half of that is compiling.
unexport PYTHONDONTWRITEBYTECODE

# One process for each processor: most tests wait, others compute. One process only: PYTEST_ARGS="-n 0".
PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test format format-check lint types docs wheel toxiproxy pure unit soak lock clean

help:
	@echo "make demo       brokers, workers and a client while their processes are killed"
	@echo "make test       all checks and tests, as CI runs them"
	@echo "make format     format the sources"
	@echo "make lint types docs wheel pure unit   one part of make test"
	@echo "make soak       random worlds of the simulator, until it is stopped; goes on where it was"
	@echo "make lock       renew requirements.lock"
	@echo "make clean      remove all that the other targets made"

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock hatch_build.py reliable/_accelerator.pyx
	@scripts/install $(VENV)

demo: $(STAMP)
	@$(PYTHON) -m reliable demo

# Quick checks first; pytest last, so that its summary is the end of what one sees.
test: lint types docs wheel toxiproxy pure unit

format: $(STAMP)
	$(PYTHON) -m ruff format
	$(PYTHON) -m ruff check --fix

format-check: $(STAMP)
	$(PYTHON) -m ruff format --check

lint: format-check
	$(PYTHON) -m ruff check

types: $(STAMP)
	$(PYTHON) -m mypy $(MYPY_ARGS)

docs: $(STAMP)
	$(PYTHON) -m sphinx -W --keep-going -q -b html docs docs/_build/html

wheel: $(STAMP)
	scripts/test-wheel $(VENV)

toxiproxy: $(STAMP)
	$(PYTHON) -m chaos.toxi

# What moves messages without the accelerator is what users without a C compiler have.
pure: $(STAMP)
	RELIABLE_PURE=1 $(PYTHON) -m pytest -q tests/test_transport.py tests/loopback/test_calls.py

unit: $(STAMP)
	$(PYTHON) -m pytest $(PARALLEL) $(PYTEST_ARGS)

soak: $(STAMP)
	$(PYTHON) scripts/soak_simulation.py --theme all --jobs 2

lock:
	scripts/lock

clean:
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f reliable/_accelerator.*.so reliable/_accelerator.*.new
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
