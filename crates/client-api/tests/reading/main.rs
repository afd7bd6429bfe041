//! What clients read: `/sync` with its long poll, and reads of rooms.

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../it/common.rs"]
mod common;
mod ephemeral;
mod history;
mod peek;
mod poll;
mod rooms;
mod sync;
