"""Events of room versions 10 to 12, built and checked apart from any homeserver's code."""

from __future__ import annotations

import hashlib
from typing import Any

from canonicaljson import encode_canonical_json
from signedjson.sign import sign_json
from signedjson.types import SigningKey
from unpaddedbase64 import encode_base64

Json = dict[str, Any]

ROOM_VERSIONS = ("10", "11", "12")

_KEPT = {
    "auth_events",
    "content",
    "depth",
    "hashes",
    "origin_server_ts",
    "prev_events",
    "room_id",
    "sender",
    "signatures",
    "state_key",
    "type",
}
_KEPT_BEFORE_11 = _KEPT | {"membership", "origin", "prev_state"}
_KEPT_CONTENT = {
    "m.room.member": {"membership", "join_authorised_via_users_server"},
    "m.room.create": {"creator"},
    "m.room.join_rules": {"join_rule", "allow"},
    "m.room.power_levels": {
        "ban",
        "events",
        "events_default",
        "kick",
        "redact",
        "state_default",
        "users",
        "users_default",
    },
    "m.room.history_visibility": {"history_visibility"},
}


def room_ids_are_hashes(version: str) -> bool:
    return version == "12"


def redact(event: Json, version: str) -> Json:
    """The event without what a redaction removes (server-server spec, "Redactions")."""
    modern = version != "10"
    kept = {key: event[key] for key in event if key in (_KEPT if modern else _KEPT_BEFORE_11)}
    content = event["content"]
    kind = event["type"]
    if modern and kind == "m.room.create":
        return kept
    kept_content = _KEPT_CONTENT.get(kind, set())
    if modern and kind == "m.room.power_levels":
        kept_content = kept_content | {"invite"}
    if modern and kind == "m.room.redaction":
        kept_content = {"redacts"}
    kept["content"] = {key: content[key] for key in content if key in kept_content}
    return kept


def content_hash(event: Json) -> str:
    bare = _without(event, "unsigned", "signatures", "hashes")
    return encode_base64(hashlib.sha256(encode_canonical_json(bare)).digest())


def event_id(event: Json, version: str) -> str:
    bare = _without(redact(event, version), "signatures")
    digest = hashlib.sha256(encode_canonical_json(bare)).digest()
    return "$" + encode_base64(digest, urlsafe=True)


def finish(event: Json, version: str, server: str, key: SigningKey) -> Json:
    """Adds the content hash and the server's signature."""
    hashed = {**event, "hashes": {"sha256": content_hash(event)}}
    signed = sign_json(redact(hashed, version), server, key)
    return {**hashed, "signatures": signed["signatures"]}


def _without(event: Json, *keys: str) -> Json:
    return {key: value for key, value in event.items() if key not in keys}
