# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.

export CARGO_TARGET_DIR ?= $(or $(EXEUNT_CACHE),$(HOME)/.cache/exeunt)/target
# One build serves the demo and the tests: the same packages, features and profile every time.
BIN := $(CARGO_TARGET_DIR)/debug/exeunt
PEER ?= exeunt

RELEASE := $(CARGO_TARGET_DIR)/release/exeunt
# RocksDB is compiled once, for every profile.
CARGO = ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR="$$(deploy/tools/rocksdb.sh)" cargo

.PHONY: demo test check interop oracle crash fuzz image mesh-test nightly bench bench-attack bench-footprint bench-state bench-sync build release tools

demo: build
	@EXEUNT_BIN=$(BIN) "$$(tests/interop/setup.sh)" -B tests/interop/demo.py --peer $(PEER)

test: check interop oracle crash

# Formatting, lints, house rules, and every Rust test.
check: tools
	cargo fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	fuzz/run.sh check
	$(CARGO) test --workspace --locked --quiet

# Real clients and real peers beside the real binary.
interop: build
	EXEUNT_BIN=$(BIN) tests/interop/run.sh nio synapse membership deleting jobs triage clients hostile failures

# Our rules and Synapse's on random rooms; EXEUNT_GRAPHS says how many (500), EXEUNT_SEED where from.
oracle: build
	EXEUNT_GRAPHS_BIN=$(CARGO_TARGET_DIR)/debug/exeunt-graphs tests/oracle/run.sh

# kill -9 under load; EXEUNT_CRASH_ROUNDS says how often (20).
crash: build
	EXEUNT_BIN=$(BIN) tests/interop/run.sh crash

# Hostile bytes on what meets them first; EXEUNT_FUZZ_SECONDS says how long for each target (10).
fuzz: tools
	fuzz/run.sh $${EXEUNT_FUZZ_SECONDS:-10}

# The long forms: 20,000 random rooms beside Synapse's rules and ruma's, 2,000 that arrive in four ways at a whole
# server, 2,000 simulated meshes, 200 kills. About four hours.
nightly: build
	$(MAKE) oracle EXEUNT_GRAPHS=20000
	EXEUNT_GRAPHS=20000 $(CARGO) test --workspace --locked --test graphs agrees_with_ruma
	EXEUNT_ARRIVALS=2000 $(CARGO) test --workspace --locked --test it arrival
	EXEUNT_SIM_SEEDS=2000 $(CARGO) test --workspace --locked --test seeds
	$(MAKE) crash EXEUNT_CRASH_ROUNDS=200

# The server's image and Complement's; an engine is started where none answers.
image: release
	deploy/tools/docker.sh
	deploy/tools/image.sh $(RELEASE) complement

# Three Exeunts and a Synapse in containers, every ordered pair, and servers with wrong certificates.
mesh-test: image
	tests/mesh/run.sh

# What membership costs, two servers of ours beside two Synapses: latency, rates, CPU. About six minutes.
bench: release
	EXEUNT_BIN=$(RELEASE) tests/bench/membership.sh --check

# Start-up, memory, CPU and sizes beside a Synapse of the same run.
bench-footprint: release
	EXEUNT_BIN=$(RELEASE) tests/bench/footprint.sh

# First syncs, delivery and 2,000 clients that wait, beside a Synapse of the same run.
bench-sync: release
	EXEUNT_BIN=$(RELEASE) tests/bench/sync.sh --check

# State resolution beside ruma's, by ratios that must be met, and a large room on disk: bytes, CPU and time of an event.
bench-state: tools
	$(CARGO) bench --locked -p exeunt-state-res --bench resolve
	$(CARGO) bench --locked -p exeunt-room --bench store

# What an attack on one room costs those who talk in another.
bench-attack: tools
	$(CARGO) bench --locked -p exeunt-room --bench store -- attack

build: tools
	$(CARGO) build --workspace --all-targets --locked

release: tools
	$(CARGO) build --workspace --release --locked
	@echo $(RELEASE)

tools:
	@deploy/tools/install.sh
	@deploy/tools/rocksdb.sh >/dev/null
