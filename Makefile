# `make demo` and `make test` are all that a newcomer needs. Each makes .venv first, and does that again only when
# pyproject.toml or requirements.lock changed; from then on nothing here needs a network.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# A tree that was moved or copied holds an environment that points to the old place.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(shell rm -f $(STAMP))
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test format format-check lint types docs wheel toxiproxy unit soak lock clean

help:
	@echo "make demo       brokers, workers and a client while their processes are killed"
	@echo "make test       all checks and tests, as CI runs them"
	@echo "make format     format the sources"
	@echo "make lint types docs wheel unit   one part of make test"
	@echo "make soak       random worlds of the simulator, until it is stopped; goes on where it was"
	@echo "make lock       renew requirements.lock"
	@echo "make clean      remove all that the other targets made"

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@scripts/install $(VENV)

demo: $(STAMP)
	@$(PYTHON) -m reliable demo

# Quick checks first; pytest last, so that its summary is the end of what one sees.
test: lint types docs wheel toxiproxy unit

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

unit: $(STAMP)
	$(PYTHON) -m pytest $(PYTEST_ARGS)

soak: $(STAMP)
	$(PYTHON) scripts/soak_simulation.py --theme all --jobs 2

lock:
	scripts/lock

clean:
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
