# One command for each thing to do; `make` alone lists them.
#
#   make serve PORT=9000 MODELS=path     any variable below can be set so
#
# `.venv` is made on first need. Serving needs little and never torch; developing needs everything.
# Each leaves a stamp in `.venv`, so that the next run starts at once.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# HOST is not taken from the environment: some shells export it with another meaning.
HOST = 127.0.0.1
PORT ?= 8000
MODELS ?=
# The base Python; by default the first of these that is new enough.
PYTHON ?=
PYTHONS := python3 python3.13 python3.12 python3.11
# More arguments for pip, such as another package index.
PIP_ARGS ?=
# More arguments for pytest: make test TESTS='tests/service -x'
TESTS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A GPU machine serves with the CUDA build of onnxruntime, any other with the CPU build.
# Engines besides it follow after a comma: EXTRA=cpu,openvino.
EXTRA ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
SERVE_STAMP = $(VENV)/.serve-$(EXTRA)
DEV_STAMP := $(VENV)/.dev
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo podman-compose)
COMPOSE_FILES = -f docker-compose.yml $(if $(findstring gpu,$(EXTRA)),-f docker/compose.gpu.yml) \
	$(if $(MODELS),-f docker/compose.models.yml)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: HOST=$(HOST) PORT=$(PORT) MODELS=$(or $(MODELS),(the bundled demo model)) PYTHON PIP_ARGS TESTS"

.PHONY: serve
serve: $(SERVE_STAMP) ## Start the service on HOST:PORT with the models in MODELS
	exec $(BIN)/blvnet serve --host $(HOST) --port $(PORT) $(if $(MODELS),--models '$(MODELS)')

.PHONY: install
install: $(DEV_STAMP) ## Make .venv with everything that development needs

.PHONY: test
test: $(DEV_STAMP) ## Run the whole test suite
	$(BIN)/python -m pytest $(TESTS)

.PHONY: lint
lint: $(DEV_STAMP) ## Formatter check, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: bench
bench: $(DEV_STAMP) ## Run the benchmarks; tables go to benchmarks/results
	$(BIN)/python -m benchmarks

.PHONY: up
up: ## Start service, Prometheus and Grafana in containers
	BIND=$(HOST) PORT=$(PORT) MODELS='$(abspath $(MODELS))' $(COMPOSE) $(COMPOSE_FILES) up --build --detach

.PHONY: down
down: ## Stop the containers; what Prometheus and Grafana stored stays
	BIND=$(HOST) PORT=$(PORT) MODELS='$(abspath $(MODELS))' $(COMPOSE) $(COMPOSE_FILES) down

.PHONY: clean
clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python=$(PYTHON); \
	for candidate in $(PYTHONS); do \
		[ -z "$$python" ] || break; \
		! $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || python=$$candidate; \
	done; \
	$${python:-false} -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; tried: $(or $(PYTHON),$(PYTHONS)). Name one with PYTHON=/path/to/python" >&2; \
		exit 1; }; \
	$$python -m venv $(VENV) || { \
		rm -rf $(VENV); echo "$$python cannot make a virtual environment (on Debian: apt install python3-venv)." >&2; exit 1; }

$(VENV)/.serve-%: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install $(PIP_ARGS) --constraint constraints.txt --editable '.[$*]'
	@touch $@

# `dev` brings the CPU build of onnxruntime, which overwrites the CUDA build where that was first; so on a
# GPU machine the CUDA build is put back last.
$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	@if [ -n '$(findstring gpu,$(EXTRA))' ]; then \
		$(PIP) uninstall --yes onnxruntime onnxruntime-gpu && \
		$(PIP) install $(PIP_ARGS) --constraint constraints.txt --editable '.[gpu]'; fi
	@touch $(SERVE_STAMP) $@
