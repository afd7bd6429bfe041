# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.

export CARGO_TARGET_DIR ?= $(or $(EXEUNT_CACHE),$(HOME)/.cache/exeunt)/target
# One build serves the demo and the tests: the same packages, features and profile every time.
BIN := $(CARGO_TARGET_DIR)/debug/exeunt
PEER ?= exeunt

.PHONY: demo test check interop crash build tools

demo: build
	@EXEUNT_BIN=$(BIN) "$$(tests/interop/setup.sh)" -B tests/interop/demo.py --peer $(PEER)

test: check interop crash

# Formatting, lints, house rules, and every Rust test.
check: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked --quiet

# Real clients and real peers beside the real binary.
interop: build
	EXEUNT_BIN=$(BIN) tests/interop/run.sh nio synapse hostile

# kill -9 under load; EXEUNT_CRASH_ROUNDS says how often (20).
crash: build
	EXEUNT_BIN=$(BIN) tests/interop/run.sh crash

build: tools
	cargo build --workspace --all-targets --locked

tools:
	@deploy/tools/install.sh
