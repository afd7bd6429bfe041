#!/bin/sh
# Makes base images from Debian packages, for where no image registry can be reached:
#
#   base.sh runtime   the C and C++ libraries and the CA certificates; no shell, no package manager
#   base.sh debian    Debian, as small as debootstrap makes it
#
# Prints the image's name. An image that is there already is not made again.
set -eu

SUITE=bookworm
PACKAGES="base-files libc6 libgcc-s1 libstdc++6 ca-certificates"
USER_ID=65532

say() { echo "base: $*" >&2; }

case ${1:-} in
    runtime | debian) image=exeunt-base-$1:$SUITE ;;
    *) echo "usage: base.sh runtime|debian" >&2; exit 2 ;;
esac
if docker image inspect "$image" >/dev/null 2>&1; then
    echo "$image"
    exit
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "making $image takes root on Debian; elsewhere name a base that you have"
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

debian() {
    if ! command -v debootstrap >/dev/null; then
        say "installing debootstrap"
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap >&2
    fi
    say "making $image with debootstrap"
    debootstrap --variant=minbase "$SUITE" "$root" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        exit 1
    }
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
}

# The packages are those of the Debian that this runs on: the binary is built on it too.
runtime() {
    say "making $image from packages"
    mkdir -p "$work/packages" "$root/etc/ssl/certs" "$root/tmp"
    chmod 1777 "$root/tmp"
    # apt downloads as the user _apt, which must reach the folder.
    chmod 755 "$work" && chmod 777 "$work/packages"
    (
        cd "$work/packages"
        # shellcheck disable=SC2086  # a list of package names
        apt-get download -qq $PACKAGES >&2 || {
            apt-get update -qq >&2
            apt-get download -qq $PACKAGES >&2
        }
    )
    for package in "$work"/packages/*.deb; do
        dpkg -x "$package" "$root"
    done
    find "$root/usr/share/ca-certificates" -name '*.crt' | sort | xargs cat \
        >"$root/etc/ssl/certs/ca-certificates.crt"
    printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:%s:%s::/:/sbin/nologin\n' \
        "$USER_ID" "$USER_ID" >"$root/etc/passwd"
    printf 'root:x:0:\nnonroot:x:%s:\n' "$USER_ID" >"$root/etc/group"
    rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale \
        "$root"/usr/share/lintian "$root"/usr/share/gcc "$root"/usr/share/gdb \
        "$root"/usr/share/ca-certificates "$root"/usr/lib/*/gconv "$root"/usr/sbin
}

"$1"
tar -C "$root" --numeric-owner -c . |
    docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        - "$image" >/dev/null
echo "$image"
