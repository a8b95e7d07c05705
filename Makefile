# A newcomer needs two of these: `make demo` and `make test`. Everything else is for developers.
# TORCH is what pip is asked for, before anything that needs it: name another build or index with
# it where yours serves gigabytes of CUDA and you want the CPU's, e.g. make demo TORCH=/path/torch.whl
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test check format bench train-default clean

demo: $(VENV)/.installed
	@echo "17 questions and 17 documents in 23 languages, and what the default model finds. It was trained"
	@echo "on the language of software, so everyday questions are not its best side:"
	@echo
	@$(BIN)/polyvec similarity --queries examples/queries.jsonl --documents examples/documents.jsonl \
		--id-column id --relevant-column relevant

test: $(VENV)/.dev
	@$(BIN)/polyvec pull default
	@$(BIN)/python -m pytest

check: $(VENV)/.dev
	@BIN=$(BIN) sh scripts/check

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(VENV)/.dev
	@$(BIN)/python bench/cpu.py

train-default: $(VENV)/.dev
	@BIN=$(BIN) sh scripts/train_default

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.installed: pyproject.toml
	@echo "Building $(VENV): a minute, once."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install $(TORCH)
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements-dev.txt
	@$(PIP) install --editable '.[serve,otel,evaluate,search]' --requirement requirements-dev.txt
	@touch $@
