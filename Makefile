# One target for each task; `make` alone lists them.
#
#   make serve PORT=9000 MODELS=path     any variable below can be set this way
#
# `.venv` is created by the first target that needs it. Serving installs few packages and never torch; development
# installs all of them. Each installation leaves a stamp in `.venv`, so that the next run starts immediately.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# HOST is not taken from the environment: some shells export it with another meaning.
HOST = 127.0.0.1
PORT ?= 8000
MODELS ?=
# Folder of examples and taught models; an empty value disables teaching.
TEACH_DIR ?= taught
# The base Python; by default the first of these that is new enough.
PYTHON ?=
PYTHONS := python3 python3.13 python3.12 python3.11
# Additional arguments for pip, such as another package index.
PIP_ARGS ?=
# Additional arguments for pytest: make test TESTS='tests/service -x'
TESTS ?=
# Arguments of the mutation tests.
MUTANTS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A GPU machine serves with the CUDA build of onnxruntime, any other with the CPU build.
# Additional engines follow after a comma: EXTRA=cpu,openvino.
EXTRA ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
SERVE_STAMP = $(VENV)/.serve-$(EXTRA)
DEV_STAMP := $(VENV)/.dev
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo podman-compose)
# Replicas of the service in containers; more than one run behind a proxy.
REPLICAS ?= 1
# Files with the API keys and the admin key for containers.
API_KEYS_FILE ?=
ADMIN_KEY_FILE ?=
COMPOSE_FILES = -f docker-compose.yml $(if $(findstring gpu,$(EXTRA)),-f docker/compose.gpu.yml) \
	$(if $(MODELS),-f docker/compose.models.yml) $(if $(API_KEYS_FILE),-f docker/compose.keys.yml) \
	$(if $(ADMIN_KEY_FILE),-f docker/compose.admin.yml) $(if $(filter-out 1,$(REPLICAS)),-f docker/compose.scale.yml)
# Memory of each replica: the process and the tmpfs for uploads, the largest frames in a decode worker for each core,
# and the weights of the models in two configurations with the engines' own data. (nproc would print
# OMP_NUM_THREADS, which is not the number of cores.)
MEMORY ?= $(shell echo $$((1600 + 400 * $$(env -u OMP_NUM_THREADS nproc) + 4 * $$(du -sm $(or $(MODELS),service/demo_models) | cut -f1))))m
COMPOSE_ENV = BIND=$(HOST) PORT=$(PORT) MODELS='$(abspath $(MODELS))' MEMORY=$(MEMORY) REPLICAS=$(REPLICAS) \
	API_KEYS_FILE='$(abspath $(API_KEYS_FILE))' ADMIN_KEY_FILE='$(abspath $(ADMIN_KEY_FILE))' \
	REVISION=$(shell git rev-parse --short HEAD 2>/dev/null || echo unknown) \
	VERSION=$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: HOST=$(HOST) PORT=$(PORT) MODELS=$(or $(MODELS),(the bundled demo model)) PYTHON PIP_ARGS TESTS"

.PHONY: serve
serve: $(SERVE_STAMP) ## Start the service on HOST:PORT with the models in MODELS
	exec $(BIN)/blvnet serve --host $(HOST) --port $(PORT) $(if $(MODELS),--models '$(MODELS)') \
		$(if $(TEACH_DIR),--teach-dir '$(TEACH_DIR)')

.PHONY: install
install: $(DEV_STAMP) ## Make .venv with everything that development needs

# Most tests use one core, so PyTorch gets one thread, and some wait for servers, so two cores get three processes. The
# tests of a file run in one process, with its fixtures.
.PHONY: test
test: $(DEV_STAMP) ## Run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(or $(TESTS),tests --numprocesses 3 --dist loadfile --no-loadscope-reorder)

.PHONY: lint
lint: $(DEV_STAMP) ## Formatter check, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: docs
docs: $(DEV_STAMP) ## Build the documentation as a site in build/site
	$(BIN)/python docs/make_site.py

.PHONY: openapi
openapi: $(DEV_STAMP) ## Write docs/openapi.json, the OpenAPI document, after a change of the interface
	PYTHONPATH=. $(BIN)/python docs/write_openapi.py

.PHONY: bench
bench: $(DEV_STAMP) ## Run the benchmarks; tables go to benchmarks/results
	$(BIN)/python -m benchmarks

.PHONY: mutants
mutants: $(DEV_STAMP) ## Mutation tests of the service (hours); MUTANTS='service/pipeline/batching/slots.py --sample 50'
	$(PIP) install $(PIP_ARGS) --quiet --constraint constraints.txt --editable '.[mutation]'
	$(BIN)/python -m tests.mutation $(MUTANTS)

.PHONY: up
up: ## Start REPLICAS of the service, Prometheus, Alertmanager and Grafana in containers
	$(COMPOSE_ENV) $(COMPOSE) $(COMPOSE_FILES) up --build --detach --scale service=$(REPLICAS)

.PHONY: down
down: ## Stop the containers; the data of Prometheus and Grafana is kept
	$(COMPOSE_ENV) $(COMPOSE) $(COMPOSE_FILES) down

.PHONY: hashes
# redis needs async-timeout on the patch releases of Python 3.11 that Debian has.
hashes: $(BIN)/python ## Write the versions and digests of what the image installs
	$(PIP) install $(PIP_ARGS) --quiet pip-tools
	(echo "# What the serving image installs (Python 3.11 on Linux), with the digests of all files. Written by: make hashes"; \
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --extra cpu --extra redis --constraint constraints.txt \
		--no-annotate --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --output-file - pyproject.toml; \
	echo async-timeout==5.0.1 | $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-annotate --no-header \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --output-file - - | \
		sed 's/^async-timeout==[0-9.]*/& ; python_full_version < "3.11.3"/') \
		> docker/requirements/cpu.txt
	$(PIP) uninstall --quiet --yes pip-tools

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

# `dev` installs the CPU build of onnxruntime, which overwrites an earlier CUDA build; on a GPU machine the CUDA build
# is therefore reinstalled last.
$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	@if [ -n '$(findstring gpu,$(EXTRA))' ]; then \
		$(PIP) uninstall --yes onnxruntime onnxruntime-gpu && \
		$(PIP) install $(PIP_ARGS) --constraint constraints.txt --editable '.[gpu]'; fi
	@touch $(SERVE_STAMP) $@
