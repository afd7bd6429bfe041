#!/bin/sh
# Signs a certificate for SERVER_NAME with Complement's CA, and starts the server.
set -eu

CA=/complement/ca
TLS=/tls

mint() {
    mkdir -p "$TLS"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -keyout "$TLS/server.key" -out "$TLS/server.csr" -subj "/CN=$SERVER_NAME" 2>/dev/null
    cat >"$TLS/extensions" <<END
subjectAltName = DNS:$SERVER_NAME
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
END
    openssl x509 -req -in "$TLS/server.csr" -CA "$CA/ca.crt" -CAkey "$CA/ca.key" \
        -set_serial "0x$(openssl rand -hex 16)" -days 30 -sha256 \
        -extfile "$TLS/extensions" -out "$TLS/server.pem" 2>/dev/null
}

export EXEUNT__SERVER__NAME="$SERVER_NAME"
command=$1
# Complement puts the registrations of application services there before it starts the container.
set -- /complement/appservice/*.yaml
if [ -e "$1" ]; then
    EXEUNT__APP_SERVICES__FILES=$(IFS=,; echo "$*")
    export EXEUNT__APP_SERVICES__FILES
fi
# The image may have been committed under another name, so each start signs anew.
[ "$command" = serve ] && mint
exec /usr/bin/exeunt "$command" --config /etc/exeunt/exeunt.toml
