#!/bin/sh
# Creates the virtual environment of the interop tests, or brings it up to date, and prints
# the path of its interpreter. Running it again costs nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${EXEUNT_CACHE:-$HOME/.cache/exeunt}
venv=$cache/venv
stamp=$venv/requirements.sha256

say() { echo "interop setup: $*" >&2; }

has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

install_venv_module() {
    has_venv && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "python3 with its venv module is missing; on Debian: apt-get install python3-venv"
        exit 1
    fi
    say "installing python3-venv"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >&2
    has_venv || { say "python3 still cannot create a virtual environment"; exit 1; }
}

mkdir -p "$cache"
exec 9>"$cache/venv.lock"
flock 9

wanted=$(cat "$here/requirements.txt" "$here/constraints.txt" | sha256sum | cut -d' ' -f1)
if [ ! -x "$venv/bin/python" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    install_venv_module
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "Python 3.11 or newer is needed, this is $(python3 --version)"
        exit 1
    }
    say "installing the requirements into $venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "$here/requirements.txt" --constraint "$here/constraints.txt" >&2
    echo "$wanted" >"$stamp"
fi
echo "$venv/bin/python"
