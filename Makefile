# `make demo` and `make test` need nothing but Python 3.11 and pip; everything they install goes into .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help demo demo-nion demo-directelectron demo-bluesky test test-gpu machines lint types docs bench fuzz clean distclean FORCE

BIN := .venv/bin
# Versions are pinned for the build requirements too: older pips read the first variable in the build environment, newer ones the second.
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

help:
	@echo 'make demo       simulate, scan adaptively, reconstruct, and write a report (creates .venv on first use)'
	@echo 'make demo-nion  scan through the simulator of an instrument maker, in an environment of its own; also demo-directelectron, demo-bluesky'
	@echo 'make test       all checks: ruff, mypy, import-linter, pytest with the code in the docs'
	@echo 'make test-gpu   the loop, training and reconstruction on a GPU against the CPU, and their speed'
	@echo 'make lint       ruff check, ruff format --check, import-linter'
	@echo 'make types      mypy'
	@echo 'make machines   make test as on other processors, and with one and two threads (an hour)'
	@echo 'make docs       the site in build/site: tutorials, reference, results (three minutes; its tools go into .venv on first use)'
	@echo 'make bench      time the hot paths'
	@echo 'make fuzz       try 2,000 damaged inputs (ten minutes)'
	@echo 'make clean      remove caches and build products; make distclean removes .venv as well'

demo: .venv/.stamp-run
	@$(BIN)/adaptycho demo

demo-nion demo-directelectron demo-bluesky: demo-%: build/demo-%/.stamp
	@OMP_NUM_THREADS=1 build/demo-$*/bin/python experiments/instruments/demo_$*.py

test: .venv/.stamp-test
	@echo '== ruff check'
	@$(BIN)/ruff check .
	@echo '== ruff format --check'
	@$(BIN)/ruff format --check .
	@echo '== mypy'
	@$(BIN)/mypy
	@echo '== import-linter'
	@$(BIN)/lint-imports
	@echo '== pytest'
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-gpu: .venv/.stamp-test
	@$(BIN)/python tests/gpu.py

machines: .venv/.stamp-test
	@$(BIN)/python tests/machines.py

lint: .venv/.stamp-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: .venv/.stamp-test
	@$(BIN)/mypy

docs: .venv/.stamp-docs
	@$(BIN)/python -m sphinx --fail-on-warning --fresh-env --quiet -c docs . build/site
	@echo 'the site is in build/site/index.html'

bench: .venv/.stamp-run
	@$(BIN)/adaptycho bench

fuzz: .venv/.stamp-test
	@$(BIN)/python tests/fuzzing.py --count 2000 --seed 0

clean:
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests -depth -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	@rm -rf .venv

# A stamp is written last, so an interrupted installation is simply taken up again.
.venv/.stamp-test: pyproject.toml constraints.txt .venv/.place
	@echo 'installing adaptycho and its test tools into .venv (about a minute the first time)'
	@$(PIP) -c constraints.txt -e '.[test]'
	@touch $@ .venv/.stamp-run

.venv/.stamp-docs: pyproject.toml constraints.txt .venv/.place
	@echo 'installing adaptycho and the tools of its site into .venv (about a minute the first time)'
	@$(PIP) -c constraints.txt -e '.[docs]'
	@touch $@ .venv/.stamp-run

.venv/.stamp-run: pyproject.toml constraints.txt .venv/.place
	@echo 'installing adaptycho into .venv (about a minute the first time)'
	@$(PIP) -c constraints.txt -e .
	@touch $@

# The instruments' own software is installed beside adaptycho in environments of its own, one for each, for it needs other versions of some things.
SIMULATOR-nion := nionswift-usim==5.4.2 nionswift-instrumentation==23.6.2
SIMULATOR-directelectron := deapi==5.3.1 de-twin==0.3.0
SIMULATOR-bluesky := bluesky==1.15.1 'ophyd-async[sim]==0.21.3' bluesky-adaptive==1.0.0

build/demo-%/.stamp: pyproject.toml constraints.txt .venv/.place
	@echo 'installing adaptycho and the simulator into build/demo-$* (a few minutes the first time)'
	@$(BIN)/python -m venv --clear build/demo-$*
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
		build/demo-$*/bin/python -m pip install --quiet -e .
	@PIP_DISABLE_PIP_VERSION_CHECK=1 build/demo-$*/bin/python -m pip install --quiet $(SIMULATOR-$*)
	@touch $@

# .place holds the path .venv was made for: a tree that was copied or moved needs a new one, since its scripts and the link to src are absolute.
ifneq "$(shell cat .venv/.place 2>/dev/null)" "$(CURDIR)"
.venv/.place: FORCE
endif
.venv/.place:
	@for python in python3.11 python3 ''; do \
		if [ -n "$$python" ] && "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'adaptycho needs Python 3.11 or newer: neither python3.11 nor python3 on the PATH is one' >&2; exit 1; \
	fi; \
	clear=--clear; \
	if [ ! -e .venv/.place ] && $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then clear=; fi; \
	echo "making .venv with $$("$$python" --version)"; \
	"$$python" -m venv $$clear .venv; \
	printf '%s' '$(CURDIR)' > $@

FORCE:
