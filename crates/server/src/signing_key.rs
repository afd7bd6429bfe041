//! The file with this server's signing key: `ed25519 <id> <base64 seed>`, as Synapse writes it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use exeunt_core::{Signer, key::KeyError, ruma::OwnedServerName};
use ring::rand::SecureRandom;
use thiserror::Error;

/// The file's name in the data folder.
pub const FILE: &str = "signing.key";

const SEED_BYTES: usize = 32;

/// Writes no padding; takes it, and the loose last bits that the specification's own key has.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why there is no signing key to use.
#[derive(Debug, Error)]
pub enum SigningKeyError {
    #[error("{path}: the signing key cannot be read: {error}; let this user read it")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error(
        "{path}: this is not a signing key: {why}; restore it from a backup. Other servers know \
         this server by it, so it is not made anew"
    )]
    Garbled { path: PathBuf, why: String },
    #[error("{path}: the new signing key cannot be written: {error}; let this user write there")]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("the operating system gives no random bytes for a signing key; try again")]
    NoRandomness,
}

/// Loads the key from the data folder, or makes one where there is none.
pub fn load_or_create(
    folder: &Path,
    server: OwnedServerName,
    random: &dyn SecureRandom,
) -> Result<Signer, SigningKeyError> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = generate(random)?;
            write_new(folder, &path, &text)
                .map_err(|error| SigningKeyError::Unwritable { path: path.clone(), error })?;
            text
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(SigningKeyError::Garbled { path, why: "it is not text".into() });
        }
        Err(error) => return Err(SigningKeyError::Unreadable { path, error }),
    };
    parse(&text, server).map_err(|why| SigningKeyError::Garbled { path, why })
}

fn parse(text: &str, server: OwnedServerName) -> Result<Signer, String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let line = lines.next().ok_or("it is empty")?;
    if lines.next().is_some() {
        return Err("it has more than one line, and only one key can be used".into());
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["ed25519", id, seed] = words.as_slice() else {
        return Err("its line is not `ed25519 <id> <base64 seed>`".into());
    };
    // A broken seed must not show in a log, so its error is not passed on.
    let seed = BASE64.decode(seed).map_err(|_| "its third word is not base64")?;
    Signer::new(server, &format!("ed25519:{id}"), &seed)
        .map_err(|error: KeyError| error.to_string())
}

/// A line for a new key: 32 bytes of seed, and an id that tells keys apart.
fn generate(random: &dyn SecureRandom) -> Result<String, SigningKeyError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; SEED_BYTES + 4];
    random.fill(&mut bytes).map_err(|_| SigningKeyError::NoRandomness)?;
    let (seed, id) = bytes.split_at(SEED_BYTES);
    let id: String = id.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    Ok(format!("ed25519 a_{id} {}\n", BASE64.encode(seed)))
}

/// Writes a file that is whole or not there, and never one that was there.
fn write_new(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let draft = path.with_extension("key.new");
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // Unlike a rename, a link does not replace what has appeared meanwhile.
    fs::hard_link(&draft, path)?;
    fs::remove_file(&draft)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use exeunt_core::ruma::server_name;
    use ring::rand::SystemRandom;

    use super::*;

    fn load(folder: &Path) -> Result<Signer, SigningKeyError> {
        load_or_create(folder, server_name!("a.example").to_owned(), &SystemRandom::new())
    }

    fn refusal(text: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, text).unwrap();
        let error = load(folder.path()).err().expect("must be refused").to_string();
        assert_eq!(fs::read(&path).unwrap(), text, "the file was touched");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        error
    }

    #[test]
    fn a_key_is_made_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("new/data");
        let made = load(&folder).unwrap();
        let path = folder.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read(&path).unwrap();
        let loaded = load(&folder).unwrap();
        assert_eq!(made.public(), loaded.public());
        assert_eq!(made.key_id(), loaded.key_id());
        assert_eq!(fs::read(&path).unwrap(), text);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    /// CVE-2026-24044.
    #[test]
    fn two_servers_have_different_keys() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(load(a.path()).unwrap().public(), load(b.path()).unwrap().public());
    }

    #[test]
    fn a_key_of_synapse_is_taken() {
        // The seed of the specification's test vectors (appendices, "Signing key").
        let line = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n";
        let signer = parse(line, server_name!("domain").to_owned()).unwrap();
        assert_eq!(signer.key_id(), "ed25519:1");
        assert_eq!(signer.public(), "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI");
    }

    #[test]
    fn garbled_keys_are_refused_and_kept() {
        assert!(refusal(b"").contains("it is empty"));
        assert!(refusal(b"\xff\xfe").contains("it is not text"));
        assert!(refusal(b"secret").contains("its line is not"));
        assert!(refusal(b"ed25519 a_b ***").contains("not base64"));
        assert!(refusal(b"ed25519 a_b AAAA").contains("32 bytes"));
        assert!(refusal(b"ed25519 a-b AAAA").contains("a key id looks like"));
        assert!(refusal(b"ed25519 a AAAA\ned25519 b AAAA\n").contains("more than one line"));
    }

    #[test]
    fn an_unreadable_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FILE)).unwrap();
        let error = load(folder.path()).err().unwrap();
        assert!(matches!(error, SigningKeyError::Unreadable { .. }), "{error}");
    }
}
