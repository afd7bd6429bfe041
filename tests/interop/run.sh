#!/bin/sh
# Runs interop suites: run.sh [suite…] [-- pytest options]; all of them by default, see README.md. EXEUNT_BIN names the binary (default: target/release/exeunt);
# EXEUNT_INTEROP_SELFTEST=1 puts Synapse in its place, to test the harness itself.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

suites=
while [ $# -gt 0 ]; do
    case $1 in
        --) shift; break ;;
        -*) break ;;
    esac
    if [ ! -f "$here/test_$1.py" ]; then
        echo "run.sh: no suite called $1" >&2
        exit 2
    fi
    suites="$suites test_$1.py"
    shift
done

if [ "${EXEUNT_INTEROP_SELFTEST:-0}" != 1 ]; then
    EXEUNT_BIN=${EXEUNT_BIN:-$here/../../target/release/exeunt}
    if [ ! -x "$EXEUNT_BIN" ]; then
        echo "run.sh: no executable at $EXEUNT_BIN; build it or set EXEUNT_BIN" >&2
        exit 2
    fi
    EXEUNT_BIN=$(realpath "$EXEUNT_BIN")
    export EXEUNT_BIN
fi

python=$("$here/setup.sh")
cd "$here"
# shellcheck disable=SC2086  # suites is a list of file names without blanks
exec "$python" -B -m pytest --quiet --tb=short -rs $suites "$@"
