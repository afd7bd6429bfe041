//! The endpoints over HTTP, as other servers see them.

mod auth;
mod common;
mod directory;
mod gate;
mod handshakes;
mod public;
mod queries;
