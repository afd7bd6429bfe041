//! Reads the registration files of application services.

use std::path::{Path, PathBuf};

use config::{File, FileFormat};
use exeunt_users::{AppServices, Registration, RegistrationError};
use thiserror::Error;

use crate::config::Config;

/// What is wrong with the files. No text of a file is repeated but ids and expressions.
#[derive(Debug, Error)]
pub enum AppServiceError {
    #[error("{path}: {text}; a registration file is needed, as the service generates it")]
    File { path: PathBuf, text: String },
    #[error("{0}; correct its registration file (app_services.files)")]
    Registration(#[from] RegistrationError),
}

/// The services that the configuration names.
pub fn load(config: &Config) -> Result<AppServices, AppServiceError> {
    let files = &config.app_services.files.0;
    let registrations = files
        .iter()
        .map(|path| read(path).map_err(|text| AppServiceError::File { path: path.clone(), text }));
    let registrations = registrations.collect::<Result<_, _>>()?;
    Ok(AppServices::new(&config.server.name, registrations)?)
}

fn read(path: &Path) -> Result<Registration, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let source = File::from_str(&text, FileFormat::Yaml);
    let built = config::Config::builder().add_source(source).build();
    let built = built.map_err(|error| format!("is not YAML: {error}"))?;
    built.try_deserialize().map_err(|error| error.to_string())
}
