#!/bin/sh
# Builds the images around a binary: image.sh BINARY [complement]
#
#   EXEUNT_IMAGE             name of the server's image (exeunt:latest)
#   EXEUNT_COMPLEMENT_IMAGE  name of Complement's (exeunt-complement:latest)
#   EXEUNT_BASE              base of the server's image; else the public one, or, where no
#                            registry can be reached, one made from Debian's packages
#   EXEUNT_DEBIAN            the same for images that need a shell
set -eu

# The bases that there are everywhere else; the same as in the Dockerfiles.
PUBLIC_BASE=gcr.io/distroless/cc-debian12
PUBLIC_DEBIAN=debian:bookworm-slim
PULL_DEADLINE=120

here=$(cd "$(dirname "$0")" && pwd)
deploy=$(dirname "$here")

# The classic builder is in every engine; BuildKit is a plugin that Debian does not package.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0

say() { echo "image: $*" >&2; }

# base WANTED PUBLIC KIND: prints the base to use.
base() {
    if [ -n "$1" ]; then
        echo "$1"
    elif docker image inspect "$2" >/dev/null 2>&1; then
        echo "$2"
    elif docker image inspect "exeunt-base-$3:bookworm" >/dev/null 2>&1; then
        echo "exeunt-base-$3:bookworm"
    elif timeout "$PULL_DEADLINE" docker pull --quiet "$2" >/dev/null 2>&1; then
        echo "$2"
    else
        say "$2 cannot be pulled"
        "$here/base.sh" "$3"
    fi
}

if [ "${1:-}" = base ]; then
    base "${EXEUNT_DEBIAN:-}" "$PUBLIC_DEBIAN" debian
    exit
fi

binary=${1:?usage: image.sh BINARY [complement]}
image=${EXEUNT_IMAGE:-exeunt:latest}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

mkdir "$context/data"
cp "$binary" "$context/exeunt"
chmod 755 "$context/exeunt" "$context/data"
cp "$deploy/image/exeunt.toml" "$context/exeunt.toml"
chmod 644 "$context/exeunt.toml"
docker build --quiet --file "$deploy/Dockerfile" --tag "$image" \
    --build-arg "BASE=$(base "${EXEUNT_BASE:-}" "$PUBLIC_BASE" runtime)" "$context" >/dev/null
docker run --rm "$image" --version >/dev/null || { say "the binary does not start in $image"; exit 1; }
say "$image, $(($(docker image inspect --format '{{.Size}}' "$image") / 1000000)) MB"

if [ "${2:-}" = complement ]; then
    complement=${EXEUNT_COMPLEMENT_IMAGE:-exeunt-complement:latest}
    docker build --quiet --file "$deploy/complement/Dockerfile" --tag "$complement" \
        --build-arg "EXEUNT=$image" \
        --build-arg "BASE=$(base "${EXEUNT_DEBIAN:-}" "$PUBLIC_DEBIAN" debian)" \
        "$deploy/complement" >/dev/null
    say "$complement, $(($(docker image inspect --format '{{.Size}}' "$complement") / 1000000)) MB"
fi
