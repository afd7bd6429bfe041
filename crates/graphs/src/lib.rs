//! Random rooms, for comparing state resolution and authorisation rules with other implementations.
//!
//! A seed is all of a room: [`Room::generate`] makes its events, judges them as a [`Server`] that
//! has all of them would, and resolves states of any age. [`report::room`] is the room as JSON.

mod build;
mod levels;
pub mod report;
mod rng;
mod room;
mod server;
mod shapes;

pub use rng::Rng;
pub use room::{Resolution, Room};
pub use server::{Received, Server, State, Verdict};

/// Every room version, whether or not this server knows it.
pub const VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

/// The version of the room that a seed makes.
pub fn version_of(seed: u64) -> &'static str {
    VERSIONS[(seed % VERSIONS.len() as u64) as usize]
}
