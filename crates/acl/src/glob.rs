//! Globs over server names (and user ids, which are no longer): `*` is any run of characters, `?` is one, the whole name must match.
//!
//! The matcher carries the set of reachable positions of the *name* through the pattern, as bits.
//! Each pattern byte costs a few words of work whatever the input: no backtracking, so that an ACL
//! of 64 KB costs every request the same little (CVE-2023-45129).

/// Longest host that can match anything; server names have at most 261 bytes (appendices).
pub const MAX_HOST_BYTES: usize = 261;
const WORDS: usize = MAX_HOST_BYTES / 64 + 1;

/// A set of positions in a name, 0 to [`MAX_HOST_BYTES`].
type Positions = [u64; WORDS];

/// A compiled pattern: lower case, runs of `*` collapsed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glob(Box<[u8]>);

impl Glob {
    /// `None` for a pattern that is longer than any name.
    pub fn compile(pattern: &str) -> Option<Self> {
        let mut bytes = pattern.to_ascii_lowercase().into_bytes();
        bytes.dedup_by(|a, b| *a == b'*' && *b == b'*');
        let shortest = bytes.iter().filter(|byte| **byte != b'*').count();
        (shortest <= MAX_HOST_BYTES).then(|| Self(bytes.into()))
    }

    pub fn matches(&self, name: &Name) -> bool {
        let mut reached: Positions = [0; WORDS];
        reached[0] = 1;
        for byte in &self.0 {
            reached = match byte {
                b'*' => from_lowest(reached),
                b'?' => next(reached),
                byte => next(and(reached, name.occurrences(*byte))),
            };
            reached = and(reached, &name.positions);
            if reached == [0; WORDS] {
                return false;
            }
        }
        reached[name.len / 64] >> (name.len % 64) & 1 == 1
    }
}

/// A name prepared for matching: where each of its characters occurs.
#[derive(Debug)]
pub struct Name {
    len: usize,
    /// Positions 0 to `len`.
    positions: Positions,
    /// By lower-case ASCII code.
    occurrences: Box<[Positions; 128]>,
}

const NOWHERE: Positions = [0; WORDS];

impl Name {
    /// `None` for what cannot be a host: too long or not ASCII.
    pub fn new(host: &str) -> Option<Self> {
        if host.len() > MAX_HOST_BYTES || !host.is_ascii() {
            return None;
        }
        let mut occurrences = Box::new([NOWHERE; 128]);
        for (i, byte) in host.bytes().enumerate() {
            let positions = &mut occurrences[usize::from(byte.to_ascii_lowercase())];
            positions[i / 64] |= 1 << (i % 64);
        }
        let mut positions = NOWHERE;
        (0..=host.len()).for_each(|i| positions[i / 64] |= 1 << (i % 64));
        Some(Self { len: host.len(), positions, occurrences })
    }

    fn occurrences(&self, byte: u8) -> &Positions {
        self.occurrences.get(usize::from(byte)).unwrap_or(&NOWHERE)
    }
}

fn and(mut a: Positions, b: &Positions) -> Positions {
    a.iter_mut().zip(b).for_each(|(a, b)| *a &= b);
    a
}

/// Every position moved on by one character.
fn next(mut positions: Positions) -> Positions {
    let mut carry = 0;
    for word in &mut positions {
        (*word, carry) = (*word << 1 | carry, *word >> 63);
    }
    positions
}

/// Every position from the lowest of the set on.
fn from_lowest(mut positions: Positions) -> Positions {
    let mut seen = false;
    for word in &mut positions {
        if seen {
            *word = u64::MAX;
        } else if *word != 0 {
            *word = u64::MAX << word.trailing_zeros();
            seen = true;
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by recursion.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|i| naive(rest, &name[i..])),
            ([b'?', rest @ ..], [_, name @ ..]) => naive(rest, name),
            ([a, rest @ ..], [b, name @ ..]) => a.eq_ignore_ascii_case(b) && naive(rest, name),
            _ => false,
        }
    }

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::compile(pattern).is_some_and(|glob| glob.matches(&Name::new(name).unwrap()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn agrees_with_the_definition(pattern in "[abA*?.]{0,9}", name in "[abB.]{0,12}") {
            prop_assert_eq!(matches(&pattern, &name), naive(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn agrees_across_word_borders(
            head in "[ab]{0,3}",
            tail in "[ab?]{0,3}",
            name in "[ab]{60,70}|[ab]{124,132}|[ab]{250,261}",
        ) {
            let pattern = format!("{head}*{tail}");
            prop_assert_eq!(matches(&pattern, &name), naive(pattern.as_bytes(), name.as_bytes()));
            prop_assert!(matches(&name, &name));
            let longer = format!("{name}?");
            prop_assert!(!matches(&longer, &name));
            prop_assert!(matches(&"?".repeat(name.len()), &name));
        }
    }

    #[test]
    fn runs_of_stars_cost_one() {
        let glob = Glob::compile(&"*".repeat(65_000)).unwrap();
        assert_eq!(&*glob.0, b"*");
        assert!(glob.matches(&Name::new("a").unwrap()));
    }

    #[test]
    fn a_pattern_longer_than_any_name_is_dropped() {
        assert!(Glob::compile(&"a".repeat(MAX_HOST_BYTES)).is_some());
        assert!(Glob::compile(&"a".repeat(MAX_HOST_BYTES + 1)).is_none());
        assert!(Glob::compile(&"?*".repeat(MAX_HOST_BYTES + 1)).is_none());
    }

    #[test]
    fn what_makes_a_backtracking_matcher_blow_up() {
        let name = "a".repeat(MAX_HOST_BYTES);
        assert!(!matches(&format!("{}b", "*a".repeat(200)), &name));
        assert!(matches(&"*a".repeat(200), &name));
    }

    #[test]
    fn a_pattern_that_is_not_ascii_matches_nothing() {
        assert!(!matches("é.example", "e.example"));
        assert!(!matches("\u{212a}.example", "k.example"));
        assert!(matches("*.example", "k.example"));
    }
}
