#!/bin/sh
# Installs what a build needs and Debian packages, or names it: clang for RocksDB, and Rust.
set -eu

say() { echo "set-up: $*" >&2; }

has_libclang() {
    for library in /usr/lib/llvm-*/lib/libclang.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang.so*; do
        [ -e "$library" ] && return
    done
    return 1
}

if ! command -v cargo >/dev/null; then
    say "Rust is missing: install it with rustup (https://rustup.rs), version 1.90 or newer"
    exit 1
fi

missing=
command -v c++ >/dev/null || missing="$missing g++"
command -v make >/dev/null || missing="$missing make"
command -v clang >/dev/null || missing="$missing clang"
has_libclang || missing="$missing libclang-dev"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "needed for RocksDB and jemalloc:$missing; on Debian: apt-get install$missing"
    exit 1
fi
say "installing$missing"
apt-get update -qq >&2
# shellcheck disable=SC2086  # a list of package names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >&2
