//! What the network does to messages by chance.

use std::time::Duration;

use crate::Rng;

/// Chances in percent, and the longest delay.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub lost: u64,
    pub answer_lost: u64,
    pub twice: u64,
    pub delay: Duration,
}

impl Weather {
    pub const CALM: Self =
        Self { lost: 0, answer_lost: 0, twice: 0, delay: Duration::from_millis(20) };

    /// What a run begins with.
    pub fn of(rng: &Rng) -> Self {
        if rng.percent(25) {
            return Self::CALM;
        }
        let longest = [50, 500, 5_000, 60_000][rng.below(4) as usize];
        Self {
            lost: rng.below(20),
            answer_lost: rng.below(20),
            twice: rng.below(20),
            delay: Duration::from_millis(longest),
        }
    }

    pub(crate) fn trip(&self, rng: &Rng) -> Trip {
        let longest = self.delay.as_millis() as u64 + 1;
        let delay = || {
            // Mostly quick: messages overtake each other.
            let most = if rng.percent(70) { longest / 10 + 1 } else { longest };
            Duration::from_millis(rng.below(most))
        };
        Trip {
            out: delay(),
            back: delay(),
            again: rng.percent(self.twice).then(delay),
            lost: rng.percent(self.lost),
            answer_lost: rng.percent(self.answer_lost),
            silent: rng.percent(50),
        }
    }
}

/// What becomes of one request. By default nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trip {
    pub out: Duration,
    pub back: Duration,
    /// It arrives once more, so much later.
    pub again: Option<Duration>,
    pub lost: bool,
    pub answer_lost: bool,
    /// Where there is no way, nobody says so.
    pub silent: bool,
}
