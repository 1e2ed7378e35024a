# The two commands: `make run` and `make test`. Both set up everything that they need.

CARGO  ?= cargo
PYTHON ?= python3
VENV   := .venv
# 0 leaves out the trainer, and with it the download of libtorch.
TRAINER ?= 1

.DEFAULT_GOAL := help
.PHONY: help run serve test lint test-rust test-python bench clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: ## Build, then serve the built-in dataset, stream one epoch and show where the dashboard is
	$(CARGO) build --release --locked -p pba-server
	target/release/pba demo

serve: ## Build and run the server alone; ARGS="--dataset cifar10=./cifar10"
	$(CARGO) build --release --locked -p pba-server
	target/release/pba serve $(ARGS)

test: lint test-rust test-python ## Check format and lints, and pass all tests

lint: ## Check format and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --locked --all-targets -- -D warnings

test-rust: $(VENV)/ready ## Run the Rust tests
	$(CARGO) build --workspace --locked
	$(CARGO) test --workspace --locked

test-python: $(VENV)/ready ## Run the tests of the Python client
	$(CARGO) build --locked -p pba-server
	$(VENV)/bin/python -m pytest -q client/python/tests

bench: ## Measure, ours beside the peers'
	$(CARGO) bench --locked -p pba-benches

# The stamp is older than its causes exactly when something has to be installed.
$(VENV)/ready: client/python/requirements-test.txt client/python/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r client/python/requirements-test.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable client/python
	touch $@

clean: ## Remove everything that was built or installed here
	$(CARGO) clean
	rm -rf $(VENV)
