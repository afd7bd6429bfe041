#!/bin/sh
# What syncing costs beside Synapse: sync.sh [--alone] [--check] [--json FILE]
# EXEUNT_BIN names the binary (default: the release build of this checkout).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
interop=$here/../interop

EXEUNT_BIN=${EXEUNT_BIN:-${CARGO_TARGET_DIR:-$here/../../target}/release/exeunt}
if [ ! -x "$EXEUNT_BIN" ]; then
    echo "sync: no executable at $EXEUNT_BIN; build it or set EXEUNT_BIN" >&2
    exit 2
fi
EXEUNT_BIN=$(realpath "$EXEUNT_BIN")
export EXEUNT_BIN

python=$("$interop/setup.sh")
PYTHONPATH=$interop exec "$python" -B "$here/sync.py" "$@"
