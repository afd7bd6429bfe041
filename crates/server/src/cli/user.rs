//! `exeunt user create`

use std::{io, sync::Arc};

use exeunt_store::Store;
use exeunt_users::{NewAccount, Users};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{app::database, clock::now_ms, config::Config, failure::Failure};

/// Letters of a generated password. With 32 of them each holds 5 bits.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const GENERATED_LENGTH: usize = 24;

pub struct Password {
    text: String,
    generated: bool,
}

/// The first line of standard input, or a new password.
pub fn password(from_stdin: bool) -> Result<Password, Failure> {
    if !from_stdin {
        return generate();
    }
    let mut text = String::new();
    io::stdin()
        .read_line(&mut text)
        .map_err(|e| Failure::Input(format!("standard input cannot be read: {e}")))?;
    let text = text.trim_end_matches(['\n', '\r']).to_owned();
    if text.is_empty() {
        return Err(Failure::Input("standard input has no password in its first line".into()));
    }
    Ok(Password { text, generated: false })
}

fn generate() -> Result<Password, Failure> {
    let mut bytes = [0; GENERATED_LENGTH];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::Input("the operating system gives no random bytes".into()))?;
    let text = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    Ok(Password { text, generated: true })
}

/// Creates the account; returns what to print.
pub fn create(
    config: &Config,
    name: &str,
    password: &Password,
    admin: bool,
) -> Result<String, Failure> {
    let store = Store::open(&database(&config.store.path))?;
    let users = Users::new(
        store.clone(),
        config.server.name.clone(),
        Arc::new(now_ms),
        SystemRandom::new(),
    );
    let new = NewAccount {
        localpart: Some(name),
        password: Some(&password.text),
        admin,
        displayname: None,
        registration_token: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let created = runtime.block_on(users.register(new));
    store.close();
    let user = created?;
    Ok(match password.generated {
        true => format!("{user}\npassword: {}\n", password.text),
        false => format!("{user}\n"),
    })
}
