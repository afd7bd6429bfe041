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
PUBLIC_BASE=gcr.io/distroless/cc-debian12:nonroot
PUBLIC_DEBIAN=debian:bookworm-slim
PULL_DEADLINE=120

here=$(cd "$(dirname "$0")" && pwd)
deploy=$(dirname "$here")
"$here/docker.sh"

# The classic builder is in every engine; BuildKit is a plugin that Debian does not package.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0

say() { echo "image: $*" >&2; }

# Builds without a word, unless it fails.
build() {
    docker build --quiet "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

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
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
context=$work/context

base=$(base "${EXEUNT_BASE:-}" "$PUBLIC_BASE" runtime)
mkdir -p "$context/data"
cp "$binary" "$context/exeunt"
chmod 755 "$context/exeunt" "$context/data"
cp "$deploy/image/exeunt.toml" "$context/exeunt.toml"
chmod 644 "$context/exeunt.toml"
build --file "$deploy/Dockerfile" --tag "$image" --build-arg "BASE=$base" "$context"
docker run --rm "$image" --version >/dev/null 2>"$log" || {
    cat "$log" >&2
    say "the binary does not start on $base; if that lacks a version of GLIBC or GLIBCXX, it is older than"
    say "this system: name a base that is not, such as EXEUNT_BASE=gcr.io/distroless/cc-debian13:nonroot"
    exit 1
}
say "$image, $(($(docker image inspect --format '{{.Size}}' "$image") / 1000000)) MB"

if [ "${2:-}" = complement ]; then
    complement=${EXEUNT_COMPLEMENT_IMAGE:-exeunt-complement:latest}
    base=$(base "${EXEUNT_DEBIAN:-}" "$PUBLIC_DEBIAN" debian)
    build --file "$deploy/complement/Dockerfile" --tag "$complement" \
        --build-arg "EXEUNT=$image" --build-arg "BASE=$base" "$deploy/complement"
    say "$complement, $(($(docker image inspect --format '{{.Size}}' "$complement") / 1000000)) MB"
fi
