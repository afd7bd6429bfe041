//! The crate from outside, as clients and as the API crates see it.

mod common;
mod endpoints;
mod hang_up;
mod streams;
mod wire;
