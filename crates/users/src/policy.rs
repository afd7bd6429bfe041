//! Who may register.

use subtle::ConstantTimeEq;

/// From the configuration.
#[derive(Clone, Default)]
pub struct RegistrationPolicy {
    /// Anyone may register, unless there is a token.
    pub open: bool,
    /// Whoever knows it may register, and with it nobody else.
    pub token: Option<String>,
    /// For registration by an admin's script, see [`crate::SharedSecret`].
    pub shared_secret: Option<String>,
}

impl std::fmt::Debug for RegistrationPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrationPolicy")
            .field("open", &self.open)
            .field("token", &self.token.is_some())
            .field("shared_secret", &self.shared_secret.is_some())
            .finish()
    }
}

impl RegistrationPolicy {
    /// Whether `token` is the registration token, in a time that tells nothing of it.
    pub fn token_is_valid(&self, token: &str) -> bool {
        self.token.as_ref().is_some_and(|ours| ours.as_bytes().ct_eq(token.as_bytes()).into())
    }
}
