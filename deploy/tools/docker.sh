#!/bin/sh
# Sees that a Docker engine, docker-compose and openssl are here: installs Debian's where they are
# missing, and starts the engine where none answers. Running it again costs nothing.
#
# An engine that it starts keeps its data under $EXEUNT_CACHE/docker and goes on running;
# `docker.sh stop` ends it.
set -eu

cache=${EXEUNT_CACHE:-$HOME/.cache/exeunt}
state=$cache/docker
pid=$state/dockerd.pid
START_DEADLINE=60

say() { echo "docker: $*" >&2; }

answers() { docker version >/dev/null 2>&1; }

compose() { docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null; }

install_missing() {
    missing=
    answers || command -v dockerd >/dev/null || missing="docker.io"
    command -v docker >/dev/null || missing="docker.io"
    compose || missing="$missing docker-compose"
    command -v openssl >/dev/null || missing="$missing openssl"
    [ -z "$missing" ] && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing: $missing. Install Docker with its Compose plugin and openssl, or run this as"
        say "root on Debian"
        exit 1
    fi
    say "installing $missing"
    apt-get update -qq >&2
    # Nothing is started here: without an init system that would fail.
    # shellcheck disable=SC2086  # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $missing iptables >&2
}

start() {
    if [ "$(id -u)" != 0 ]; then
        say "no engine answers: start it (systemctl start docker), or let this user talk to it"
        say "(usermod -aG docker $(id -un), then log in again), or run this as root"
        exit 1
    fi
    say "no engine answers; starting dockerd, its log is $state/dockerd.log"
    mkdir -p "$state/exec"
    rm -f "$pid"
    setsid dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$pid" \
        >"$state/dockerd.log" 2>&1 </dev/null 9>&- &
    started=$!
    waited=0
    until answers; do
        if ! kill -0 "$started" 2>/dev/null; then
            say "dockerd ended; the last it said:"
            tail -n 5 "$state/dockerd.log" >&2
            say "a container that may not start containers shows this; use a machine or VM"
            exit 1
        fi
        if [ "$waited" -ge "$START_DEADLINE" ]; then
            say "dockerd does not answer after $START_DEADLINE s; see $state/dockerd.log"
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
}

if [ "${1:-}" = stop ]; then
    [ -f "$pid" ] && kill "$(cat "$pid")"
    exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/docker.lock"
flock 9
install_missing
answers || start
