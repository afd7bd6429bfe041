#!/bin/sh
# Brings a mesh up, runs the tests in it, and takes it down whatever happens:
# run.sh [pytest options]
#
#   EXEUNT_IMAGE   the image under test (exeunt:latest, as `make image` builds it)
#   SYNAPSE_IMAGE  the peer; else the public image, or one made from the PyPI package
#   MESH_KEEP=1    leave it up, to look around
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mesh=$root/deploy/mesh
LOG_LINES=60
UP_DEADLINE=300

say() { echo "mesh: $*" >&2; }

"$root/deploy/tools/docker.sh"
export EXEUNT_IMAGE="${EXEUNT_IMAGE:-exeunt:latest}"
docker image inspect "$EXEUNT_IMAGE" >/dev/null 2>&1 || {
    say "there is no image $EXEUNT_IMAGE; run make image"
    exit 2
}
SYNAPSE_IMAGE=$("$mesh/synapse/build.sh")
export SYNAPSE_IMAGE
python=$("$root/tests/interop/setup.sh")

# Servers with a clock of their own. The classic builder is in every engine.
export CLOCK_IMAGE=exeunt-clock:latest
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
debian=$("$root/deploy/tools/image.sh" base)
built=$(docker build --quiet --tag "$CLOCK_IMAGE" --build-arg "EXEUNT=$EXEUNT_IMAGE" \
    --build-arg "BASE=$debian" "$here/clock" 2>&1) || { say "$built"; exit 1; }

# Names and ports that no mesh beside this one has.
export MESH_PROJECT="exeunt-mesh-test-$$" MESH_NETWORK="exeunt-mesh-test-$$"
export HS1_PORT= HS2_PORT= HS3_PORT= HS4_PORT=
MESH_STATE=$(mktemp -d)
export MESH_STATE

compose() {
    if docker compose version >/dev/null 2>&1; then
        set -- docker compose -p "$MESH_PROJECT" -f "$mesh/docker-compose.yml" \
            -f "$here/strangers.yml" "$@"
    else
        set -- docker-compose -p "$MESH_PROJECT" -f "$mesh/docker-compose.yml" \
            -f "$here/strangers.yml" "$@"
    fi
    "$@"
}

down() {
    status=$?
    trap - EXIT INT TERM
    if [ "$status" != 0 ]; then
        compose logs --no-color --tail="$LOG_LINES" >&2 || true
    fi
    if [ "${MESH_KEEP:-0}" = 1 ]; then
        say "still up: project $MESH_PROJECT, network $MESH_NETWORK, keys $MESH_STATE"
    else
        # A paused container does not stop.
        compose unpause >/dev/null 2>&1 || true
        compose down --volumes --timeout 5 >"$MESH_STATE/down.log" 2>&1 || {
            cat "$MESH_STATE/down.log" >&2
            status=1
        }
        rm -rf "$MESH_STATE"
    fi
    exit "$status"
}
trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$mesh/ca.sh" "$MESH_STATE" hs1 hs2 hs3 hs4
CA_NAME="another CA" "$mesh/ca.sh" "$MESH_STATE/other" stranger impostor
LEAF_NAME=elsewhere "$mesh/ca.sh" "$MESH_STATE" misnamed
LEAF_EXPIRED=1 "$mesh/ca.sh" "$MESH_STATE" expired
"$mesh/ca.sh" "$MESH_STATE" behind ahead month-ahead
# Containers run as other users.
chmod 755 "$MESH_STATE" "$MESH_STATE/other"

say "starting the mesh: $EXEUNT_IMAGE and $SYNAPSE_IMAGE"
COMPOSE_HTTP_TIMEOUT=$UP_DEADLINE compose up -d >"$MESH_STATE/up.log" 2>&1 || {
    cat "$MESH_STATE/up.log" >&2
    exit 1
}

cd "$here"
"$python" -B -m pytest --quiet --tb=short -rs "$@"
