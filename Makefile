# Every target sets up what it needs. PORT=, REDIS_URL= and so on pass through.

PYTHON ?= python3
VENV := .venv/bin/python
PIP := $(VENV) -m pip install -qq --disable-pip-version-check
PYTEST := $(VENV) -m pytest -q
TOGETHER := -n auto --dist worksteal
MAKEFLAGS += --no-print-directory
COMPILE := .venv/bin/uv pip compile --quiet --universal --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --python-version 3.11 pyproject.toml

.PHONY: run demo-sentinel demo-cluster test test-all lint sizes bench lock clean
.NOTPARALLEL:

run: .venv/run.stamp
	@exec $(VENV) -m webapp serve

# The same app on a local set: a primary with replicas and sentinels, or a Cluster.
demo-sentinel: .venv/run.stamp
	@exec $(VENV) -m webapp serve --set sentinel

demo-cluster: .venv/run.stamp
	@exec $(VENV) -m webapp serve --set cluster

test: .venv/test.stamp
	@$(PYTEST) $(TOGETHER) -m "not slow" tests/patterns --cov --cov-report=term-missing:skip-covered
	@$(PYTEST) $(TOGETHER) -m "not slow" --ignore=tests/patterns

# Of what takes long, servers and what measures have the machine for themselves.
test-all: test
	@$(PYTEST) $(TOGETHER) -m "slow and not alone and not server"
	@$(PYTEST) -rP -m "slow and (alone or server)"

lint: .venv/test.stamp
	$(VENV) -m ruff format --check --quiet --output-format=concise .
	$(VENV) -m ruff check --quiet --output-format=concise .
	$(VENV) -m mypy --no-error-summary
	.venv/bin/lint-imports --no-logo
	luacheck --quiet --std lua51 --read-globals redis KEYS ARGV cjson cmsgpack bit struct -- lua
	$(VENV) -m djlint --quiet --profile=jinja --ignore=H020,H030,H031,H043,J018 --lint templates
	@if command -v node >/dev/null; then \
		for file in static/*.js; do echo "node --check $$file"; node --check "$$file" || exit 1; done; \
	else echo "node is not there: the scripts in static/ are not checked"; fi
	@$(MAKE) sizes

# A long file is a question, not a crime: this reports and never fails.
sizes:
	@for rule in "webapp *.py 250" "lua *.lua 45" "templates *.html 80"; do \
		set -f; set -- $$rule; \
		find "$$1" -name "$$2" -exec wc -l {} + | \
			awk -v most="$$3" '$$1 > most && $$2 != "total" {print $$2 ": " $$1 " lines, aim at " most}'; \
	done

bench: .venv/test.stamp
	@for file in tests/bench/*.py; do echo "$$file"; $(VENV) "$$file" || exit 1; done

lock: .venv/test.stamp
	@$(PIP) uv
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --extra dev --output-file tests/requirements.lock

clean:
	rm -rf .venv .coverage .*_cache htmlcov dist build test-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/run.stamp: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, for example: make PYTHON=python3.12 run"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Setting up .venv, once"
	@$(PYTHON) -m venv .venv
	@$(PIP) --require-hashes -r requirements.lock
	@touch $@

.venv/test.stamp: tests/requirements.lock .venv/run.stamp
	@missing=; \
	for pair in chromium-headless-shell:chromium-headless-shell redis-server:redis-server luacheck:lua-check; do \
		command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; \
	done; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing$$missing"; \
			apt-get update -qq && \
				DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
		else \
			echo "Missing; on Debian and Ubuntu: sudo apt-get install$$missing"; exit 1; \
		fi; \
	fi
	@echo "Setting up the tools for tests, once"
	@$(PIP) --require-hashes -r tests/requirements.lock
	@touch $@
