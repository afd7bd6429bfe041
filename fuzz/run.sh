#!/usr/bin/env bash
# Builds the fuzz targets and runs each from its seeds. Stable Rust will do.
#
#   fuzz/run.sh [seconds] [targets…]     15 seconds each, all of them
#   fuzz/run.sh replay <target> <file>   one input again
#   fuzz/run.sh check                    formatting and lints
#
# The corpus grows from run to run under ~/.cache/exeunt/fuzz-corpus. An input that breaks a target
# fails the run, and is printed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${EXEUNT_CACHE:-$HOME/.cache/exeunt}
built=${EXEUNT_FUZZ_TARGET_DIR:-$cache/fuzz-target}

# What one input may take, in seconds and in memory.
limits=(-timeout=20 -rss_limit_mb=2048)

# The coverage that libFuzzer wants, as `cargo fuzz --sanitizer none` asks for it. With --target
# these flags stay away from build scripts and macros.
host=$(rustc -vV | sed -n 's/^host: //p')
coverage=(-Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares)

cargo_here() {
    RUSTFLAGS=${coverage[*]} cargo "$1" --manifest-path "$root/fuzz/Cargo.toml" \
        --locked --release --quiet --target "$host" --target-dir "$built" "${@:2}"
}

# The other targets do without RocksDB.
with_rocksdb() {
    ROCKSDB_LIB_DIR=$("$root/deploy/tools/rocksdb.sh")
    export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
}

build() {
    local options=()
    for target in "$@"; do
        options+=(--bin "$target")
        case $target in
            acl | canonical | pdu) ;;
            server_keys) options+=(--features client) ;;
            *) with_rocksdb && options+=(--features server) ;;
        esac
    done
    cargo_here build "${options[@]}"
}

# Longest input: what the format allows, or what is worth while.
longest() {
    case $1 in
        acl) echo 65536 ;;
        pdu | canonical) echo 8192 ;;
        ingest) echo 241 ;;
        *) echo 2048 ;;
    esac
}

# Fuzzes one target for some seconds: what it did in a line, or what went wrong.
fuzz() {
    local target=$1 seconds=$2 corpus=$cache/fuzz-corpus/$1 found=$cache/fuzz-found/$1
    local log=$cache/fuzz-found/$1.log seeds=$root/fuzz/seeds options file
    mkdir -p "$corpus" "$found"
    options=("${limits[@]}" "-max_total_time=$seconds" "-max_len=$(longest "$target")"
        -print_final_stats=1 "-artifact_prefix=$found/")
    [ -f "$seeds/$target.dict" ] && options+=("-dict=$seeds/$target.dict")
    if "$built/$host/release/$target" "${options[@]}" "$corpus" "$seeds/$target" >"$log" 2>&1; then
        local executed rate covered
        executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
        covered=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) .*/\1 edges, \2 features/p' "$log" |
            tail -n 1)
        echo "$target: $executed executions, $rate/s, $covered," \
            "corpus of $(find "$corpus" -type f | wc -l)"
        return
    fi
    echo "$target: failed; the end of $log:"
    grep -v '^#' "$log" | tail -n 40
    file=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    if [ -f "$file" ]; then
        echo "$target: again with: fuzz/run.sh replay $target $file"
        echo "$target: the input in base64: $(base64 -w0 "$file" | head -c 4096)"
    fi
    return 1
}

case ${1:-} in
    check)
        cargo fmt --manifest-path "$root/fuzz/Cargo.toml" --check
        with_rocksdb
        cargo_here clippy --all-features -- -D warnings
        ;;
    replay)
        build "$2"
        exec "$built/$host/release/$2" "${limits[@]}" "$3"
        ;;
    *)
        seconds=${1:-15}
        shift || true
        all=$(sed -n '/^\[\[bin\]\]/{n;s/^name = "\(.*\)"$/\1/p;}' "$root/fuzz/Cargo.toml")
        targets=("$@")
        # shellcheck disable=SC2206  # a list of names
        [ $# -gt 0 ] || targets=($all)
        build "${targets[@]}"
        broken=()
        for target in "${targets[@]}"; do
            fuzz "$target" "$seconds" || broken+=("$target")
        done
        [ ${#broken[@]} -eq 0 ] || { echo "broken: ${broken[*]}"; exit 1; }
        ;;
esac
