# The two commands: `make run` and `make test`. Both set up everything that they need.

CARGO  ?= cargo
PYTHON ?= python3
VENV   := .venv
# 0 leaves out the trainer, and with it the download of libtorch.
TRAINER ?= 1
ifeq ($(TRAINER),0)
PACKAGES :=
PREPARED :=
# Tests that need the trainer then say that they are left out.
export PBA_TEST_TRAINER := 0
else
PACKAGES := --workspace
PREPARED := libtorch
endif

.DEFAULT_GOAL := help
.PHONY: help run serve build test lint test-rust test-python libtorch bench clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: build ## Build, then serve the built-in dataset, stream one epoch and show where the dashboard is
	target/release/pba demo

serve: build ## Build and run the server alone; ARGS="--dataset cifar10=./cifar10"
	target/release/pba serve $(ARGS)

build: ## Build what runs: pba, and pba-trainer unless TRAINER=0
	$(CARGO) build --release --locked -p pba-server
ifneq ($(TRAINER),0)
	server/trainer/fetch-libtorch.sh
	$(CARGO) build --release --locked -p pba-trainer
endif

test: lint test-rust test-python ## Check format and lints, and pass all tests

lint: $(PREPARED) ## Check format and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(PACKAGES) --locked --all-targets -- -D warnings

test-rust: $(VENV)/ready $(PREPARED) ## Run the Rust tests
	$(CARGO) build $(PACKAGES) --locked
	$(CARGO) test $(PACKAGES) --locked

test-python: $(VENV)/ready ## Run the tests of the Python client
	$(CARGO) build --locked -p pba-server
	$(VENV)/bin/python -m pytest -q client/python/tests

libtorch: ## Fetch libtorch, which the trainer links
	server/trainer/fetch-libtorch.sh

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
