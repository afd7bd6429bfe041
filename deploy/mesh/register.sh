#!/bin/sh
# Makes an account in the mesh and logs it in: register.sh PORT NAME
set -eu

PASSWORD=mesh
SECRET=mesh-secret

port=${1:?usage: register.sh PORT NAME}
name=${2:?usage: register.sh PORT NAME}
url=http://localhost:$port/_synapse/admin/v1/register

# The value of a string in a flat JSON object on standard input.
value() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"; }

nonce=$(curl -sS "$url" | value nonce)
mac=$(printf '%s\0%s\0%s\0notadmin' "$nonce" "$name" "$PASSWORD" |
    openssl dgst -sha1 -hmac "$SECRET" | sed 's/.*= *//')
answer=$(curl -sS "$url" -H "content-type: application/json" -d "{\"nonce\": \"$nonce\", \"username\": \"$name\",
    \"password\": \"$PASSWORD\", \"mac\": \"$mac\"}")
token=$(echo "$answer" | value access_token)
[ -n "$token" ] || { echo "$answer" >&2; exit 1; }
echo "$answer" | value user_id
echo "$token"
