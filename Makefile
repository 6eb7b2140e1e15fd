# Needs Python 3.11 or newer and make; everything else is set up in .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
SLOW := $(BIN)/pytest -o cache_dir=build/failed --ignore=tests/unit --ignore=tests/contract
QUICK := $(BIN)/pytest -q --hypothesis-profile=quick -p no:cacheprovider

# Compiled test modules are kept, whatever the shell says: to rewrite their asserts each time takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run demo quick test soak faults fuzz matrix docs audit check lint type fmt bench performance lock wheel image clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.dev ## Set up .venv for development, with the locked versions

.venv/.runtime: pyproject.toml requirements/runtime.txt
	$(PYTHON) -m venv .venv
	$(PIP) install -r requirements/runtime.txt
	$(PIP) install --no-deps -e .
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.txt
	$(PIP) install -r requirements/dev.txt
	@touch $@

.venv/.docs: .venv/.runtime requirements/docs.txt
	$(PIP) install -r requirements/docs.txt
	@touch $@

run: .venv/.runtime ## Serve in dev mode: memory bus, demo page
	$(BIN)/gateway serve --dev

demo: setup deploy/demo/node_modules ## Run two gateways and two backends, to end them and see that nobody misses anything
	$(BIN)/python -m deploy.demo.run

deploy/demo/node_modules: deploy/demo/package-lock.json
	@command -v npm >/dev/null || { echo "make demo needs npm, for the phoenix package: install Node.js 20" >&2; exit 1; }
	cd deploy/demo && npm ci
	@touch $@

quick: setup ## Run the unit tests, with fewer examples of each property
	@# Two runs and not one with two workers, whose reports to each other take as long as half of the tests.
	@$(QUICK) tests/unit/[a-c]* & first=$$!; $(QUICK) tests/unit/[!_a-c]*; second=$$?; wait $$first && exit $$second

test: setup ## Run the whole test suite, with a real nats-server, real clients and a real browser
	$(BIN)/pytest -n 4 --dist worksteal --cov --cov-report=term:skip-covered tests/unit tests/contract
	@# Most of these wait for most of their time, so that there are more of them at once than cores. That may be too
	@# much for a machine with other work: what fails is run again, with nothing beside it, and must pass then.
	@rm -rf build/failed
	$(SLOW) -n 6 --dist worksteal || $(SLOW) --last-failed --last-failed-no-failures=none

soak: setup ## Let everything go wrong for a minute, SEED=n again; or look for leaks for SECONDS=3600
	$(BIN)/python -m tests.soak $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--churn $(SECONDS))

faults: setup ## Make every fault, one after the other; fills in the table of docs/reliability.md
	$(BIN)/python -m tests.faults --write

fuzz: setup ## Feed a replica a million random frames, and other input; SEED=n plays it again
	$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED))

matrix: setup ## Play every Phoenix client there is; fills in the tables of docs/clients.md
	$(BIN)/python -m tests.matrix $(if $(ONLY),--only "$(ONLY)")

docs: .venv/.docs ## Build the documentation as a site, in build/docs
	$(BIN)/python -m docs.site lay-out build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m docs.site check build/docs

audit: ## Look the locked versions up among known vulnerabilities
	.ci/audit

check: lint type test ## What CI runs, step by step

lint: setup ## Style, spelling and docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell --quiet-level=2

type: setup ## Strict type checking
	$(BIN)/mypy

fmt: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure against other servers; see bench/README.md
	$(BIN)/python -m bench

performance: setup build/bench bench/rivals/node_modules ## Measure beside rivals: docs/performance.md; ARGUMENTS="--quick" for others
	$(BIN)/python -m bench.performance --write $(ARGUMENTS)

build/bench: bench/rivals/requirements.txt
	$(PYTHON) -m venv $@
	$@/bin/pip --quiet --disable-pip-version-check install -r bench/rivals/requirements.txt
	@touch $@

bench/rivals/node_modules: bench/rivals/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: ws and socket.io are left out" >&2; exit 0; }; \
	npm ci --silent --prefix bench/rivals && touch $@

lock: setup ## Renew the locked versions in requirements/
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url pyproject.toml -o requirements/runtime.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --group docs -c requirements/dev.txt -o requirements/docs.txt

wheel: setup ## Build dist/*.whl, which runs without the repository
	rm -rf build/lib build/bdist.* dist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build/lib build/bdist.*

image: ## Build the container image
	docker build -t gateway .

clean: ## Remove what was set up
	rm -rf .venv build dist .coverage .mypy_cache .ruff_cache .pytest_cache
