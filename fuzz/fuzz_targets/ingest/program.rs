//! What a hostile server does, read from bytes: ten for each event, so that seeds are made by hand
//! and a mutation changes one thing.

use arbitrary::{Arbitrary, Result, Unstructured};

/// Most events of a program.
const MAX_STEPS: usize = 24;

#[derive(Debug)]
pub struct Program {
    /// Which of the usable room versions.
    pub version: u8,
    pub steps: Vec<Step>,
}

/// One event, and what is done with it. Numbers are taken modulo whatever they choose from.
#[derive(Debug)]
pub struct Step {
    pub kind: u8,
    pub sender: u8,
    pub target: u8,
    pub value: u8,
    /// Which events it follows, and how many of them.
    pub prev: [u8; 2],
    pub auth: Auth,
    pub when: When,
    pub damage: Damage,
    pub way: Way,
}

#[derive(Debug, Clone, Copy)]
pub enum Auth {
    /// What the rules ask for.
    Right,
    /// One of them left out.
    Without(u8),
    /// One too many, from anywhere.
    With(u8),
    Twice,
    None,
    /// More than events may have.
    Many,
}

/// Depth and time.
#[derive(Debug, Clone, Copy)]
pub enum When {
    Next,
    /// So many milliseconds before or after the others.
    Shifted(i8),
    Zero,
    Largest,
    BeyondLargest,
}

#[derive(Debug, Clone, Copy)]
pub enum Damage {
    None,
    /// The content is changed after hashing: redaction.
    Hash,
    Unsigned,
    /// Signed by another server's key, in the sender's server's name.
    WrongKey,
    /// A top-level field is gone.
    Lacks(u8),
    /// A top-level field is of another type.
    Mistyped(u8),
    OtherRoom,
    NoRoom,
    Float,
    Large,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Sent, with all that waits.
    Send,
    /// Waits for the next transaction.
    Wait,
    /// Waits twice.
    WaitTwice,
    /// Kept back, and handed out when asked for what is missing.
    KeepBack,
}

impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let version = u8::arbitrary(input)?;
        let mut steps = Vec::new();
        while !input.is_empty() && steps.len() < MAX_STEPS {
            steps.push(Step::arbitrary(input)?);
        }
        Ok(Self { version, steps })
    }
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let [kind, sender, target, value, prev, more, auth, when, damage, way] =
            <[u8; 10]>::arbitrary(input)?;
        Ok(Self {
            kind,
            sender,
            target,
            value,
            prev: [prev, more],
            auth: match auth {
                0..96 => Auth::Right,
                96..128 => Auth::Without(auth),
                128..192 => Auth::With(auth),
                192..208 => Auth::Twice,
                208..240 => Auth::None,
                _ => Auth::Many,
            },
            when: match when {
                0..96 => When::Next,
                96..208 => When::Shifted(when.cast_signed()),
                208..224 => When::Zero,
                224..240 => When::Largest,
                _ => When::BeyondLargest,
            },
            damage: match damage {
                0..160 => Damage::None,
                160..170 => Damage::Hash,
                170..180 => Damage::Unsigned,
                180..190 => Damage::WrongKey,
                190..205 => Damage::Lacks(damage),
                205..220 => Damage::Mistyped(damage),
                220..230 => Damage::OtherRoom,
                230..238 => Damage::NoRoom,
                238..246 => Damage::Float,
                _ => Damage::Large,
            },
            way: match way {
                0..128 => Way::Send,
                128..176 => Way::Wait,
                176..208 => Way::WaitTwice,
                _ => Way::KeepBack,
            },
        })
    }
}
