# Two commands matter: `make run` and `make test`. Both set up `.venv` first, on a fresh machine too.
# Recipes are plain sh with GNU make 3.81 or newer, so that a laptop's old make runs them as well.

VENV     := .venv
PY       := $(VENV)/bin/python
RUN_OK   := $(VENV)/.phonon-eels-run
DEV_OK   := $(VENV)/.phonon-eels-dev
# The rules call `phonon-eels` by name; the environment need not be activated for that.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Whoever has several Pythons says `make PYTHON=python3.12 run`.
PYTHON   ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
              $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
CORES    ?= all
# Every step is a process of its own: without compiled modules each would spend seconds on compiling them again.
unexport PYTHONDONTWRITEBYTECODE
# A comma inside $(call) would end its argument, hence the variable.
DEV_EXTRAS := workflow,cluster,viewer,notebooks,docs,dev
PYTEST   := $(PY) -m pytest -q
# A file's tests stay in one process, so that what they share is made once.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile
# Xvfb is the screen of napari's tests, SLURM with munge the facility of the batch tests. Debian's names.
SYSTEM_PACKAGES := xvfb libxcb-cursor0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1 libxcb-image0 \
                   libxcb-render-util0 libxcb-xinerama0 libegl1 libgl1 slurm-wlm munge slurmdbd mariadb-server

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run test test-slow test-gpu bench docs screenshots lint format clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 14

run: $(RUN_OK)  ## set up, then analyse the sample data; the report is in results/
	@rc=0; $(VENV)/bin/snakemake --cores $(CORES) --keep-going --rerun-incomplete --quiet rules host || rc=$$?; \
	reports=$$(ls -1 results/*/report/report.html 2>/dev/null); \
	if [ -n "$$reports" ]; then echo; echo "Results are in results/. Open in a browser:"; echo "$$reports"; fi; \
	if [ $$rc -ne 0 ]; then echo "Not every dataset went through: see above."; fi; exit $$rc

test: $(DEV_OK)  ## set up, then every test but the long ones (lint is one of them)
	@$(PYTEST) $(PARALLEL) -m "not slow and not gpu"

test-slow: $(DEV_OK)  ## the long tests: statistics, the wheel, whole runs
	@$(PYTEST) $(PARALLEL) -m "slow and not gpu" || { rc=$$?; \
	  if [ $$rc -eq 5 ]; then echo "No long test was found: that is a failure, they cannot all be gone."; fi; exit $$rc; }

test-gpu: $(DEV_OK)  ## the tests that need a CUDA device (install the extra `cuda` first)
	@$(PYTEST) -m gpu

bench: $(DEV_OK)  ## run every benchmarks/bench_*.py
	@set -e; found=; for script in benchmarks/bench_*.py; do \
	  [ -e "$$script" ] || continue; found=1; echo "== $$script"; \
	  case "$$DISPLAY$$script" in \
	    benchmarks/*viewer*) xvfb-run -a -s "-screen 0 1366x768x24" $(PY) "$$script" ;; \
	    *) $(PY) "$$script" ;; \
	  esac; \
	done; \
	[ -n "$$found" ] || { echo "There is no benchmarks/bench_*.py to run."; exit 1; }

docs: $(DEV_OK)  ## build the documentation, notebooks run, into docs/_build/html
	@$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

screenshots: $(DEV_OK)  ## make the pictures of the viewer in docs/images
	@$(PY) docs/make_screenshots.py

lint: $(DEV_OK)  ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(DEV_OK)  ## let ruff mend what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

setup: $(RUN_OK)  ## only make .venv, ready to run
setup-dev: $(DEV_OK)  ## only make .venv, ready to test

clean:  ## remove results, caches and build outputs; .venv stays
	@rm -rf results .snakemake build dist docs/_build docs/reference/generated docs/notebooks/*.ipynb .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# --- set-up -------------------------------------------------------------------------------------

# uv on the machine makes the environment itself. Otherwise the venv module does, which Debian packs apart:
# asking for `ensurepip` first avoids the half-made folder that a failing `python3 -m venv` leaves behind.
$(PY):
	@[ -n "$(PYTHON)" ] || { echo "No Python 3.11 or newer was found. Install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"; \
	if command -v uv >/dev/null 2>&1 && uv venv --quiet --python "$(PYTHON)" $(VENV); then exit 0; fi; \
	if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    echo "Installing python3-venv"; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >/dev/null; \
	  else \
	    echo "Python's venv module is incomplete. Install it (Debian: apt-get install python3-venv) and say make again."; exit 1; \
	  fi; \
	fi; \
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# $(1): extras. uv installs in seconds what pip takes minutes for, so it is fetched when it is not there; pip is the
# way out where uv cannot be had, or cannot reach the packages (it does not read pip's configuration).
define install
	@echo "Installing phonon-eels[$(1)] into $(VENV)"; \
	command -v uv >/dev/null 2>&1 || $(PY) -m pip install -qq --disable-pip-version-check uv >/dev/null 2>&1 || true; \
	if command -v uv >/dev/null 2>&1; then \
	  uv pip install --quiet --compile-bytecode --python $(PY) -e ".[$(1)]" && exit 0; \
	  echo "uv could not install it; trying pip"; \
	fi; \
	$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --upgrade >/dev/null; \
	$(PY) -m pip install -qq --disable-pip-version-check -e ".[$(1)]"
endef

# $(1): system packages. Where they cannot be installed, the tests that need them skip and say which is missing.
define system
	@command -v dpkg >/dev/null 2>&1 || exit 0; \
	missing=; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
	  echo "Installing$$missing"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; } >/dev/null 2>&1 \
	    || echo "They could not be installed; the tests that need them will skip."; \
	else echo "Some tests will skip without: apt-get install$$missing"; fi
endef

$(RUN_OK): pyproject.toml | $(PY)
	$(call install,workflow)
	@touch $@

$(DEV_OK): pyproject.toml | $(PY)
	$(call install,$(DEV_EXTRAS))
	$(call system,$(SYSTEM_PACKAGES))
	@touch $(RUN_OK) $@
