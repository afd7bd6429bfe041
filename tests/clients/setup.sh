#!/bin/sh
# Installs what the tests with JavaScript clients need, or brings it up to date, and prints the path of the Node that
# they run on. Running it again costs nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${EXEUNT_CACHE:-$HOME/.cache/exeunt}
folder=$cache/clients
stamp=$folder/installed.sha256

say() { echo "clients setup: $*" >&2; }

install_missing() {
    missing=
    command -v npm >/dev/null || missing="npm"
    command -v chromium >/dev/null || missing="$missing chromium"
    [ -z "$missing" ] && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing: $missing; on Debian: apt-get install $missing"
        exit 1
    fi
    say "installing $missing"
    apt-get update -qq >&2
    # shellcheck disable=SC2086  # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >&2
}

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

install_missing
wanted=$(sha256sum <"$here/package-lock.json" | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    say "installing the packages into $folder"
    cp "$here/package.json" "$here/package-lock.json" "$folder/"
    npm ci --prefix "$folder" --no-audit --no-fund --loglevel=error >&2
    echo "$wanted" >"$stamp"
fi
ln -sfn "$folder/node_modules" "$here/node_modules"
echo "$folder/node_modules/node/bin/node"
