# The words you type: run, test, check, format, bench. Each makes what it needs; Python 3.11+ and make are enough.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
# A machine that forbids bytecode would have each of the many processes compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help run test check format bench bench-peers requirements clean

help:
	@echo "make run      the whole product on this machine, with a simulated site"
	@echo "make test     the tests, on SQLite and on PostgreSQL"
	@echo "make check    all a change is asked: format, ruff, import contracts, mypy, templates, migrations, tests"
	@echo "make format   tidy the code"
	@echo "make bench    speed and memory as ratios against named peers"
	@echo "make bench-peers  the peers' environments, which make bench then uses"

# Installs with uv where it is there (seconds), else with pip; both check every hash.
define install
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "No virtual environment could be made. On Debian: apt install python3-venv"; exit 1; }
	@if command -v uv >/dev/null 2>&1; then uv pip install -q -p $(BIN)/python --require-hashes -r $(1); \
	 else $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $(1); fi
	@touch $@
endef

.venv/.installed: requirements.txt
	$(call install,requirements.txt)

.venv/.installed-dev: requirements-dev.txt
	$(call install,requirements-dev.txt)

run: .venv/.installed
	@exec $(BIN)/python manage.py up

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadgroup
	$(BIN)/python -m tests.on_postgresql -n 3 --dist loadgroup

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/djlint webapp/templates --check --lint --quiet
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(MAKE) test

format: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/djlint webapp/templates --reformat --quiet || true

bench: .venv/.installed-dev
	$(BIN)/python -m bench

bench-peers: .venv/.installed-dev
	$(BIN)/python -m bench.peers

# For maintainers: compile the pinned, hashed lists from what we ask for.
requirements:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make requirements" requirements.in -o requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make requirements" requirements-dev.in -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf .venv .data .mypy_cache .ruff_cache
