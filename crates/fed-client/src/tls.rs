//! TLS: which certificates are trusted, and in words why one is not.
//!
//! Verification cannot be switched off.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use tracing::warn;

use crate::error::{SetupError, clean, layers};

/// The system's roots, and those of the file `federation.extra_ca`.
pub(crate) fn client_config(extra_ca: Option<&Path>) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        warn!(%error, "some root certificates of the system cannot be loaded");
    }
    let (_, ignored) = roots.add_parsable_certificates(system.certs);
    if ignored > 0 {
        warn!(ignored, "some root certificates of the system are not usable");
    }
    if let Some(path) = extra_ca {
        add_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        return Err(SetupError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), SetupError> {
    let invalid = |reason: String| SetupError::CaInvalid { path: path.into(), reason };
    let text = std::fs::read(path)
        .map_err(|error| SetupError::CaUnreadable { path: path.into(), error })?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|e| invalid(e.to_string()))?;
        roots.add(certificate).map_err(|e| invalid(e.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(invalid("it contains no BEGIN CERTIFICATE section".into()));
    }
    Ok(())
}

/// What is wrong with a TLS connection and what mends it; none if the error is not about TLS.
pub(crate) fn explain(error: &(dyn StdError + 'static)) -> Option<String> {
    let error = layers(error).find_map(|layer| layer.downcast_ref::<rustls::Error>())?;
    let rustls::Error::InvalidCertificate(reason) = error else {
        return Some(format!("TLS failed: {}", clean(&error.to_string())));
    };
    use CertificateError as C;
    Some(match reason {
        C::UnknownIssuer => "the certificate is signed by an authority that we do not know; if it \
             is your own, add the CA to federation.extra_ca, else the server must send its whole \
             chain"
            .into(),
        C::NotValidForName => "the certificate is for another name; the server needs one for the \
             name it is delegated to"
            .into(),
        C::NotValidForNameContext { expected, presented } => clean(&format!(
            "the certificate is for another name: it covers {}, and {} is needed; fix the \
             certificate or the delegation (.well-known/matrix/server)",
            presented.join(", "),
            expected.to_str(),
        )),
        C::Expired => outdated("has expired", None),
        C::ExpiredContext { time, not_after } => {
            outdated("has expired", Some(("since", *not_after, *time)))
        }
        C::NotValidYet => outdated("is not valid yet", None),
        C::NotValidYetContext { time, not_before } => {
            outdated("is not valid yet", Some(("from", *not_before, *time)))
        }
        C::Revoked => "the certificate has been revoked; the server needs a new one".into(),
        C::BadSignature => "the certificate's signature is wrong; if the CA was renewed under the \
             same name, renew federation.extra_ca"
            .into(),
        other => clean(&format!(
            "the certificate cannot be used ({other}); a server certificate must be an X.509 v3 \
             certificate, not a CA, with the name as subject alternative name"
        )),
    })
}

/// A certificate outside of its time, or a clock that is wrong: `since` has the word for the
/// certificate's limit, the limit, and the time by our clock.
fn outdated(what: &str, since: Option<(&str, UnixTime, UnixTime)>) -> String {
    let times = since.map(|(word, limit, now)| {
        format!(" ({word} {}; this machine's clock says {})", date(limit), date(now))
    });
    format!(
        "the certificate {what}{}; correct the clock (NTP) if it is wrong, else the server needs a \
         new certificate",
        times.unwrap_or_default()
    )
}

fn date(time: UnixTime) -> String {
    /// The end of the year 9999, beyond which HTTP has no dates.
    const LAST: u64 = 253_402_300_799;
    let time = Duration::from_secs(time.as_secs().min(LAST));
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + time)
}
