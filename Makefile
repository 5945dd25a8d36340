# `make` lists the commands. Everything they need is installed into .venv from requirements.lock.
SHELL := /bin/bash
# The distribution's interpreter where it will do: it was compiled with profile-guided optimisation, as others are not
# always, and needs an eighth less CPU for a call.
PYTHON ?= $(shell for python in /usr/bin/python3 python3; do \
  $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PROTOS := $(shell find protos -name '*.proto')
DESCRIPTOR := services/gen/tollgate.binpb

.DEFAULT_GOAL := help
.PHONY: help run test faults bench check setup generate generated-is-current lint format types lock clean

help: ## Lists these commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 36

run: setup $(DESCRIPTOR) ## Starts everything, makes a few calls, prints the bill, and stays up until Ctrl-C.
	@exec $(BIN)/python -m development

test: setup $(DESCRIPTOR) ## Runs every test against real PostgreSQL, real Envoy and real processes.
	@$(BIN)/pytest -n 2 --dist loadgroup

faults: setup $(DESCRIPTOR) ## Breaks the whole system for minutes=10, in every way we know; spends seeds=20 cents at once.
	@$(BIN)/python -m tests.faults --minutes $(or $(minutes),10)
	@TOLLGATE_OVERSPEND_SEEDS=$(or $(seeds),20) $(BIN)/python -m pytest -q -s tests/faults/test_overspend.py

bench: setup $(DESCRIPTOR) ## Runs every benchmark in less than 15 minutes and prints one table.
	@$(BIN)/python -m benchmarks

check: setup lint types generated-is-current test ## What CI runs: lint, types, generated code, all tests.

setup: .venv/ready ## Creates .venv with the pinned dependencies.

.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tollgate needs Python 3.11 or newer; run 'make PYTHON=/path/to/python3.11'." >&2; exit 1; }
	@echo "Creating .venv …"
	@$(PYTHON) -m venv .venv
	@echo "Installing $$(grep -c '^[a-z]' requirements.lock) pinned packages …"
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@printf '%s\n' '$(CURDIR)' '$(CURDIR)/services/gen' > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tollgate.pth
	@touch $@

generate: ## Regenerates the stubs, the descriptor set and the API's documentation from protos.
	@rm -f $(DESCRIPTOR)
	@$(MAKE) --no-print-directory $(DESCRIPTOR)

$(DESCRIPTOR): $(PROTOS) | .venv/ready
	@echo "Generating stubs from protos …"
	@rm -rf services/gen/tollgate
	@$(BIN)/python -m grpc_tools.protoc -Iprotos -I"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=services/gen --grpc_python_out=services/gen --mypy_out=quiet:services/gen --mypy_grpc_out=quiet:services/gen \
	  $(PROTOS)
	@$(BIN)/python -m grpc_tools.protoc -Iprotos -I"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  --include_imports --include_source_info --descriptor_set_out=$@ $(PROTOS) google/rpc/error_details.proto
	@$(BIN)/python -m development.openapi services/gen

generated-is-current: setup ## Fails when services/gen is not what protos generate.
	@$(MAKE) --no-print-directory generate
	@git diff --exit-code --stat -- services/gen || { echo "services/gen is stale; commit what 'make generate' wrote." >&2; exit 1; }
	@test -z "$$(git ls-files --others --exclude-standard services/gen)" || { echo "services/gen has files that are not committed." >&2; exit 1; }

lint: setup $(DESCRIPTOR) ## Lints and checks the format of code and protos.
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/buf lint $(DESCRIPTOR) --config buf.yaml

format: setup ## Formats the code.
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

types: setup $(DESCRIPTOR) ## Checks types, strictly.
	@$(BIN)/mypy

lock: setup ## Pins the newest versions pyproject.toml allows.
	@$(BIN)/uv pip compile pyproject.toml --group dev --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --upgrade --quiet --output-file requirements.lock

clean: ## Removes the virtual environment, caches and the state of development runs.
	@rm -rf .venv .tollgate .benchmarks .mypy_cache .ruff_cache .pytest_cache .hypothesis
