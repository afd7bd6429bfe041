//! The only randomness of a simulation: splitmix64, so that a seed means the same for ever.

use std::sync::{Arc, Mutex};

/// A stream of random numbers. Clones share it.
#[derive(Clone)]
pub struct Rng(Arc<Mutex<u64>>);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// A stream of its own: how often one is asked does not change what the others say.
    pub fn fork(&self) -> Self {
        Self::new(self.next())
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound`, which is not among them.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// From 0 to 1.
    pub fn unit(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of them; `None` if there are none.
    pub fn pick<'a, T>(&self, among: &'a [T]) -> Option<&'a T> {
        among.get(usize::try_from(self.below(among.len() as u64)).unwrap_or(0))
    }
}
