# The commands of this repository. `make` alone lists them.

# Where rustup puts cargo and Debian puts nginx; not every shell looks there.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

CONFIG ?= config/sidekey.toml
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

# Tests wait for servers more than they compute.
TEST_THREADS ?= $(shell echo $$(( 2 * $$(nproc) )))

.PHONY: help run test bench load lint setup
.DEFAULT_GOAL := help

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The first upstream of the config is replaced by way of its environment twin.
ifneq ($(UPSTREAM),)
run: export SIDEKEY__UPSTREAMS__0__SERVERS := ["$(UPSTREAM)"]
endif
# exec: the program takes the shell's place, so that it gets make's signals.
run: ## Build and start Sidekey; UPSTREAM=http://host:port is the service behind it
	@tools/setup run
	cargo build --release --locked
	exec "$(RELEASE)/sidekey" serve --config "$(CONFIG)"

test: ## Run all tests; ARGS="name" runs those whose name contains it
	@tools/setup test
	RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked $(ARGS)

bench: ## Run the benchmarks and print their ratios
	@tools/setup bench
	cargo bench --locked --bench micro
	cargo bench --locked --bench gateway
	cargo bench --locked --bench store
	cargo bench --locked --bench cluster
	cargo bench --locked --bench dashboard

load: ## Hold a mixed load for LOAD_SECONDS (120) and judge every single answer
	@tools/setup run
	cargo bench --locked --bench load

lint: ## Check formatting, and lints as errors
	@tools/setup lint
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

setup: ## Install everything that the commands above need
	@tools/setup run test bench lint
