//! Random ids and secrets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};

use crate::UsersError;

pub(crate) fn bytes<const N: usize>(rng: &SystemRandom) -> Result<[u8; N], UsersError> {
    let mut out = [0; N];
    rng.fill(&mut out).map_err(|_| UsersError::Random)?;
    Ok(out)
}

/// 32 random bytes as text.
pub(crate) fn secret(rng: &SystemRandom) -> Result<String, UsersError> {
    Ok(URL_SAFE_NO_PAD.encode(bytes::<32>(rng)?))
}

/// `N` letters from an alphabet of 32.
pub(crate) fn letters<const N: usize>(
    rng: &SystemRandom,
    alphabet: &[u8; 32],
) -> Result<String, UsersError> {
    Ok(bytes::<N>(rng)?.iter().map(|b| char::from(alphabet[usize::from(b % 32)])).collect())
}
