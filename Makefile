# Tradewind from a checkout. `make help` says what there is.
# Needs Linux x86_64, Python 3.11, make and, for the engine, libnuma (installed on Debian and Ubuntu if you are root).

VENV   ?= .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3 python; do \
            if "$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then echo "$$p"; break; fi; done)
FILE   ?= examples/quickstart.yaml
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help up test e2e cluster-up cluster-down check format bench bench-peers soak chart lock clean distclean env env-dev python
.PHONY: check-lint check-format check-types check-layers check-generated check-locks
MAKEFLAGS += --no-print-directory
# Images for containers often set it, and then each of an engine's two processes compiles 10 s of Python anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## what can be made
	@echo "make up        set up everything and serve two models on http://localhost:8000/v1"
	@echo "               ARGS=--check stops after the self-check; FILE=your.yaml serves your own resources"
	@echo "make test      set up everything and run every test; ARGS='-k routing' picks some"
	@echo "make e2e       the tests on a real cluster: Kubernetes of several nodes on this machine (Linux, root), real KubeRay,"
	@echo "               images of this checkout; with KUBECONFIG, on that cluster. make cluster-up, cluster-down keep one"
	@echo "make check     linters, types, import layers, generated files and locks"
	@echo "make format    let ruff rewrite what it can"
	@echo "make bench     CPU per request and token of the gateway; latency through the platform beside the bare engine"
	@echo "make bench-peers  the same of us beside other proxies (HAProxy, Envoy, vllm-router, smg, LiteLLM ...) in one run; installs them"
	@echo "make soak      ten minutes at the machine's limit while engines die and freeze: nothing lost, nothing that piles up"
	@echo "make chart     fetch the chart's dependency and package it into dist/ (needs helm and the network)"
	@echo "make lock      resolve requirements/*.lock again; ARGS=--upgrade takes newer versions"
	@echo "make clean     remove caches and build output; make distclean removes $(VENV) too"

up: env ## serve the quickstart until Ctrl-C
	@$(BIN)/tradewind up $(FILE) $(ARGS)

test: env-dev ## unit tests in parallel, then the real engines one after the other
	@$(BIN)/python tools/run_tests.py $(ARGS)

e2e: env-dev ## the tests on a real cluster, which starts before them and ends after
	@$(BIN)/python tools/run_e2e.py $(ARGS)

cluster-up: env-dev ## start a cluster to keep between runs of make e2e
	@$(BIN)/python -m tests.e2e up

cluster-down: env-dev ## end it, or what a dead run left of one
	@$(BIN)/python -m tests.e2e down

check: env-dev ## everything that needs no test run; all of it, even when one part fails
	@$(MAKE) --keep-going check-lint check-format check-types check-layers check-generated check-locks

check-lint:
	$(BIN)/ruff check .

check-format:
	$(BIN)/ruff format --check .

check-types:
	$(BIN)/mypy

check-layers:
	$(BIN)/lint-imports --no-cache

check-generated:
	$(BIN)/python -m tradewind.schema check

check-locks:
	$(BIN)/python tools/lock.py check

format: env-dev ## rewrite in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: env-dev ## measure; JSON and a table
	@$(BIN)/python -m tests.bench $(ARGS)

bench-peers: env-dev ## measure us beside other proxies; JSON, plot and page into docs/benchmarks
	@$(BIN)/python -m tests.bench.peers $(ARGS)

soak: env-dev ## two gateways under load for minutes; ARGS='--minutes 60' for longer
	@$(BIN)/python -m tests.soak $(ARGS)

chart: ## package the chart with KubeRay's
	helm dependency build deploy/helm/tradewind
	helm package deploy/helm/tradewind --destination dist

lock: env-dev ## resolve the locks again
	$(BIN)/python tools/lock.py write $(ARGS)

env: python
	@"$(PYTHON)" tools/bootstrap.py run --venv "$(VENV)"

env-dev: python
	@"$(PYTHON)" tools/bootstrap.py dev --venv "$(VENV)"

python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 found. Install it, or say where it is: make up PYTHON=/path/to/python3.11" >&2; exit 1; }

clean: ## remove what can be made again in seconds
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache bench-*.json bench-peers.*
	find platform operators tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf "$(VENV)"
