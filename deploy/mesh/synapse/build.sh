#!/bin/sh
# Prints the name of a Synapse image: $SYNAPSE_IMAGE, or the public one, or, where no registry can
# be reached, one that it makes from the PyPI package. The version is the one that the tests pin.
set -eu

PULL_DEADLINE=300
# The Python of Debian 12, which is the base.
PYTHON=3.11

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
interop=$root/tests/interop

say() { echo "synapse: $*" >&2; }

version=$(sed -n 's/^matrix-synapse==//p' "$interop/requirements.txt")
public=matrixdotorg/synapse:v$version
image=exeunt-synapse:v$version

if [ -n "${SYNAPSE_IMAGE:-}" ]; then
    echo "$SYNAPSE_IMAGE"
    exit
fi
for there in "$image" "$public"; do
    if docker image inspect "$there" >/dev/null 2>&1; then
        echo "$there"
        exit
    fi
done
if timeout "$PULL_DEADLINE" docker pull --quiet "$public" >/dev/null 2>&1; then
    echo "$public"
    exit
fi

say "$public cannot be pulled; making $image from the PyPI package"
python=$("$interop/setup.sh")
base=$("$root/deploy/tools/image.sh" base)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
platforms=
for glibc in 2_36 2_34 2_31 2_28 2_24 2_17 2_12; do
    platforms="$platforms --platform manylinux_${glibc}_$(uname -m)"
done
# shellcheck disable=SC2086  # a list of options
"$python" -m pip install --quiet --disable-pip-version-check --no-compile \
    --target "$context/packages" --constraint "$interop/constraints.txt" \
    --only-binary=:all: --implementation cp --python-version "$PYTHON" $platforms \
    --platform "manylinux2014_$(uname -m)" --platform any "matrix-synapse==$version" >&2
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
log=$context/build.log
docker build --quiet --file "$here/Dockerfile" --tag "$image" --build-arg "BASE=$base" \
    "$context" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
echo "$image"
