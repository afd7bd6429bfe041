#!/bin/sh
# Mints the mesh's certificates: ca.sh FOLDER NAME…
#
# FOLDER/ca.pem and ca.key are the authority, made once. FOLDER/NAME/ has what one server needs:
# server.pem, server.key and ca.pem. What is there already stays. These keys protect nothing but
# a test mesh: every user may read the servers', since containers run as other users.
#
#   CA_NAME        the authority's common name (exeunt mesh CA)
#   LEAF_NAME      the name in the certificate instead of NAME, for a server that has a wrong one
#   LEAF_EXPIRED   1 for a certificate that has expired
set -eu

DAYS=365

folder=${1:?usage: ca.sh FOLDER NAME…}
shift
command -v openssl >/dev/null || { echo "ca: openssl is missing; install it" >&2; exit 1; }
mkdir -p "$folder"

quietly() { "$@" 2>"$folder/error" || { cat "$folder/error" >&2; exit 1; }; }

new_key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [ ! -s "$folder/ca.pem" ]; then
    (umask 077 && new_key "$folder/ca.key")
    quietly openssl req -x509 -new -key "$folder/ca.key" -sha256 -days "$DAYS" \
        -subj "/CN=${CA_NAME:-exeunt mesh CA}" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$folder/ca.pem"
fi

for name; do
    server=$folder/$name
    [ -s "$server/server.pem" ] && continue
    subject=${LEAF_NAME:-$name}
    mkdir -p "$server"
    new_key "$server/server.key"
    cat >"$server/extensions" <<END
subjectAltName = DNS:$subject, DNS:localhost, IP:127.0.0.1
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
END
    quietly openssl req -new -key "$server/server.key" -subj "/CN=$subject" \
        -out "$server/request"
    days=$DAYS
    # Ended at this very second, which is before anyone looks.
    [ "${LEAF_EXPIRED:-0}" = 1 ] && days=0
    quietly openssl x509 -req -in "$server/request" -CA "$folder/ca.pem" \
        -CAkey "$folder/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days "$days" -sha256 \
        -extfile "$server/extensions" -out "$server/leaf"
    cp "$folder/ca.pem" "$server/ca.pem"
    cat "$server/leaf" "$server/ca.pem" >"$server/server.pem.new"
    mv "$server/server.pem.new" "$server/server.pem"
    rm "$server/request" "$server/extensions" "$server/leaf"
    chmod 755 "$server"
    chmod 644 "$server"/*
done
rm -f "$folder/error"
