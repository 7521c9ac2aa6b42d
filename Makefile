# Every target sets up what it needs: .venv, made from requirements.lock, is ready after the first call.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
HALF_MADE := $(VENV)/.half-made
PIP_INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
LIST_FILES := git ls-files -z --cached --others --exclude-standard ':(exclude).secrets.baseline'

# NAME counts only when given to make: some systems keep the host's name in the environment under it.
ifneq ($(origin NAME),command line)
NAME :=
endif

COUNT ?= 1000

.DEFAULT_GOAL := help
.PHONY: help demo test check baseline races lifetimes conformance bench quality lock clean

help: ## show this list
	@echo 'usage: make TARGET'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) \
		| while IFS='|' read -r target text; do printf '%-12s %s\n' "$$target" "$$text"; done

demo: $(READY) ## the whole story on real text, nothing to configure
	@$(VENV)/bin/genctl demo

test: $(READY) ## run the tests (ARGS='-k name' is handed to pytest)
	$(VENV)/bin/python -m pytest $(ARGS)

check: $(READY) ## lint, formatting, types, who may import whom, secrets, vulnerable dependencies
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	@$(LIST_FILES) >/dev/null
	$(LIST_FILES) | xargs -0 $(VENV)/bin/detect-secrets-hook --no-verify --baseline .secrets.baseline
	@$(VENV)/bin/python -m tests.support.vulnerabilities requirements.lock

baseline: $(READY) ## take into .secrets.baseline what looks like a secret and is none
	$(LIST_FILES) | xargs -0 $(VENV)/bin/detect-secrets scan --slim --no-verify >$(VENV)/secrets
	mv $(VENV)/secrets .secrets.baseline

races: $(READY) ## have writers race (COUNT=100000 on each kind of store takes about an hour)
	$(VENV)/bin/python -m tests.builder.race_rounds $(COUNT)

lifetimes: $(READY) ## have a home live through anything (STEPS=10000 takes about ten minutes)
	$(VENV)/bin/python -m tests.system.lifetimes $(STEPS) $(SEED)

conformance: $(READY) ## run the public TUF conformance suite against a node's trust code (SUITE=its checkout)
	@[ -n '$(SUITE)' ] || { echo 'usage: make conformance SUITE=DIR (a checkout of' \
		'https://github.com/theupdateframework/tuf-conformance)' >&2; exit 2; }
	@command -v faketime >/dev/null || { echo 'the suite needs the program faketime' >&2; exit 2; }
	$(PYTHON) -m venv build/conformance
	build/conformance/bin/pip install --quiet --disable-pip-version-check '$(abspath $(SUITE))'
	cd '$(SUITE)' && '$(CURDIR)/build/conformance/bin/pytest' -p no:cacheprovider tuf_conformance \
		--entrypoint '$(CURDIR)/$(VENV)/bin/python $(CURDIR)/tests/conformance/client.py' $(ARGS)

bench: $(READY) ## run one benchmark (NAME=...) or all of them
	$(VENV)/bin/python -m benchmarks $(NAME)

quality: $(READY) ## measure the quality of search results
	$(VENV)/bin/python -m benchmarks.quality

lock: $(READY) ## regenerate requirements.lock (ARGS=--upgrade moves every pin)
	env -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS $(VENV)/bin/uv pip compile \
		--no-config --system-certs --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate \
		--extra dev --output-file requirements.lock $(ARGS) pyproject.toml

clean: ## remove .venv and every cache
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One at a time: the lock is on requirements.lock itself, held through descriptor 9, and the system
# lets go of it however the holder ends. HALF_MADE is there while pip works. Left behind by a set-up
# that was interrupted, it means that a package may be half written and pass for whole: such a .venv
# is made again from nothing.
$(READY): requirements.lock pyproject.toml
	@set -e; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'genctl needs Python 3.11 or newer; "$(PYTHON)" is older or missing.' >&2; \
		echo 'Name another one: make PYTHON=python3.11 $(MAKECMDGOALS)' >&2; exit 1; }; \
	exec 9<>requirements.lock; \
	$(PYTHON) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null || { \
		echo 'Waiting for another make that is setting up $(VENV)...'; \
		$(PYTHON) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'; }; \
	if [ $@ -nt requirements.lock ] && [ $@ -nt pyproject.toml ]; then exit 0; fi; \
	if [ -e $(HALF_MADE) ] || ! $(VENV)/bin/python -c \
		'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then rm -rf $(VENV); fi; \
	mkdir -p $(VENV); touch $(HALF_MADE); \
	echo 'Setting up $(VENV) from requirements.lock (about 160 MB to download, a minute or two; once only)...'; \
	[ -x $(VENV)/bin/pip ] || $(PYTHON) -m venv $(VENV); \
	$(PIP_INSTALL) --require-hashes -r requirements.lock; \
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .; \
	touch $@; rm -f $(HALF_MADE)
