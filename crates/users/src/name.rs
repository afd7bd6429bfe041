//! User names. Specification: appendices, "User Identifiers".

use exeunt_core::ruma::{OwnedUserId, ServerName, UserId};

use crate::UsersError;

/// Bytes of a whole user id, sigil and server name counted.
pub const MAX_USER_ID: usize = 255;

/// The user id for a new account. Capitals are lowered: two ids never differ in case alone.
pub(crate) fn new_user_id(localpart: &str, server: &ServerName) -> Result<OwnedUserId, UsersError> {
    use UsersError::InvalidUsername;
    let localpart = localpart.to_ascii_lowercase();
    if localpart.is_empty() {
        return Err(InvalidUsername("it is empty"));
    }
    if !localpart.bytes().all(is_allowed) {
        return Err(InvalidUsername("only a-z, 0-9 and . _ = - / + may stand in it"));
    }
    let id = format!("@{localpart}:{server}");
    if id.len() > MAX_USER_ID {
        return Err(InvalidUsername("it is too long"));
    }
    UserId::parse(id).map_err(|_| InvalidUsername("it makes no user id"))
}

/// The local user that a login names, by full id or by localpart. `None`: it cannot be ours.
pub(crate) fn login_name(text: &str, server: &ServerName) -> Option<OwnedUserId> {
    let localpart = match text.strip_prefix('@') {
        Some(rest) => {
            let (localpart, named) = rest.split_once(':')?;
            (named == server.as_str()).then_some(localpart)?
        }
        None => text,
    };
    new_user_id(localpart, server).ok()
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte)
}

#[cfg(test)]
mod tests {
    use exeunt_core::ruma::server_name;

    use super::*;

    #[test]
    fn grammar_of_new_names() {
        let server = server_name!("example.org");
        for good in ["alice", "a.b_c=d-e/f+0", "0"] {
            assert_eq!(new_user_id(good, server).unwrap(), format!("@{good}:example.org"));
        }
        assert_eq!(new_user_id("Alice", server).unwrap(), "@alice:example.org");
        for bad in ["", "a b", "a:b", "@a", "é", "a!", "a\0", "a,b", "a'b"] {
            assert!(
                matches!(new_user_id(bad, server), Err(UsersError::InvalidUsername(_))),
                "{bad:?}"
            );
        }
        let room = MAX_USER_ID - "@:example.org".len();
        assert!(new_user_id(&"x".repeat(room), server).is_ok());
        assert!(new_user_id(&"x".repeat(room + 1), server).is_err());
    }

    #[test]
    fn login_names() {
        let server = server_name!("example.org");
        let alice = Some("@alice:example.org".to_owned());
        let parse = |text: &str| login_name(text, server).map(|id| id.to_string());
        assert_eq!(parse("alice"), alice);
        assert_eq!(parse("@Alice:example.org"), alice);
        assert_eq!(parse("@alice:elsewhere.org"), None);
        assert_eq!(parse("@alice"), None);
    }
}
