#!/bin/sh
# Compares our state resolution and authorisation rules with Synapse's on random rooms:
# run.sh [options of exeunt-graphs]
#
#   EXEUNT_GRAPHS       how many rooms (500)
#   EXEUNT_SEED         the first seed (0)
#   EXEUNT_GRAPHS_BIN   the generator; default target/debug/exeunt-graphs
set -eu

here=$(cd "$(dirname "$0")" && pwd)
bin=${EXEUNT_GRAPHS_BIN:-$here/../../target/debug/exeunt-graphs}
if [ ! -x "$bin" ]; then
    echo "run.sh: no executable at $bin; build exeunt-graphs or set EXEUNT_GRAPHS_BIN" >&2
    exit 2
fi
python=$("$here/../interop/setup.sh")

# The last line says how many rooms there were: output that was cut off is a failure.
"$bin" --seed "${EXEUNT_SEED:-0}" --rooms "${EXEUNT_GRAPHS:-500}" "$@" |
    "$python" -B "$here/compare.py"
