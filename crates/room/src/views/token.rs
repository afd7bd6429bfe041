//! Tokens of sync and pagination: a place between two events of the stream.

use std::fmt;
use std::str::FromStr;

use crate::RoomError;

/// The place after the event with that order, and before the next one. `s5`, from `/sync`, is a
/// place in the stream; `t5`, from a timeline or `/messages`, in a room: the orders are the same,
/// but history that was fetched later lies below 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Stream(u64),
    Timeline(i64),
}

impl Token {
    /// The order of the last event before this place.
    pub fn order(self) -> i64 {
        match self {
            Token::Stream(position) => i64::try_from(position).unwrap_or(i64::MAX),
            Token::Timeline(order) => order,
        }
    }

    /// The stream position of this place; history from before our time is at position 0.
    pub fn position(self) -> u64 {
        u64::try_from(self.order()).unwrap_or(0)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Stream(position) => write!(f, "s{position}"),
            Token::Timeline(order) => write!(f, "t{order}"),
        }
    }
}

impl FromStr for Token {
    type Err = RoomError;

    fn from_str(text: &str) -> Result<Self, RoomError> {
        let token = match text.split_at_checked(1) {
            Some(("s", number)) => number.parse().ok().map(Token::Stream),
            Some(("t", number)) => number.parse().ok().map(Token::Timeline),
            _ => None,
        };
        token
            .filter(|token| token.to_string() == text)
            .ok_or_else(|| RoomError::InvalidParam("The token is not one of ours".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_as_written_and_nothing_else_does() {
        for (text, order, position) in [("s0", 0, 0), ("s17", 17, 17), ("t-4", -4, 0), ("t9", 9, 9)]
        {
            let token: Token = text.parse().unwrap();
            assert_eq!((token.order(), token.position()), (order, position));
            assert_eq!(token.to_string(), text);
        }
        for bad in
            ["", "s", "t", "17", "s-1", "s+1", "s01", "x1", "s1_2", "é1", "t99999999999999999999"]
        {
            assert!(matches!(bad.parse::<Token>(), Err(RoomError::InvalidParam(_))), "{bad}");
        }
    }
}
