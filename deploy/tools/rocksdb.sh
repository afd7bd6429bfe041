#!/bin/sh
# Compiles RocksDB once for every profile and prints the folder of librocksdb.a, for
# ROCKSDB_LIB_DIR (with ROCKSDB_STATIC=1). The version is that of Cargo.lock. Compiling takes
# about ten minutes on two cores; afterwards this costs nothing.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${EXEUNT_CACHE:-$HOME/.cache/exeunt}

say() { echo "rocksdb: $*" >&2; }

version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' "$root/Cargo.lock")
[ -n "$version" ] || { say "Cargo.lock names no librocksdb-sys"; exit 1; }
folder=$cache/rocksdb-$version
archive=$folder/librocksdb.a
if [ -f "$archive" ]; then
    echo "$folder"
    exit
fi

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
if [ ! -f "$archive" ]; then
    say "compiling RocksDB ($version), once"
    target=$folder/build
    # Set, even to nothing, these would make the build script look for a finished archive.
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC cargo build --manifest-path "$root/Cargo.toml" \
        --locked --release --package librocksdb-sys --target-dir "$target" >&2
    built=$(find "$target" -name librocksdb.a | head -n 1)
    [ -n "$built" ] || { say "the build left no librocksdb.a under $target"; exit 1; }
    # Renamed into place, so that a run that is interrupted leaves no half of it.
    mv "$built" "$archive.new"
    mv "$archive.new" "$archive"
    rm -rf "$target"
fi
echo "$folder"
