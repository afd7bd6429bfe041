//! Certificates of the listeners.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use exeunt_core::ruma::ServerName;
use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::{CryptoProvider, ring},
    server::ParsedCertificate,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName as TlsName, UnixTime,
    pem::{Error as PemError, PemObject},
};
use thiserror::Error;

/// Why a listener cannot speak TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{path}: cannot be read: {error}; correct the path, or let this user read it")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{path}: has no certificate in PEM; give the chain, this server's certificate first")]
    NoCertificate { path: PathBuf },
    #[error("{path}: has no private key in PEM; give the one that belongs to the certificate")]
    NoKey { path: PathBuf },
    #[error("{path}: is not PEM: {error}; give the file in PEM")]
    NotPem { path: PathBuf, error: PemError },
    #[error(
        "{certificate} and {key} do not fit together: {error}; give the key of this certificate"
    )]
    Mismatch { certificate: PathBuf, key: PathBuf, error: rustls::Error },
}

/// What other servers will object to. The listener still starts: a certificate that was renewed
/// too late is no reason to be down for clients behind a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Complaint {
    #[error(
        "{0}: the certificate has expired; correct this machine's clock (NTP) if it is wrong, else \
         renew the certificate and restart"
    )]
    Expired(PathBuf),
    #[error(
        "{0}: the certificate is not valid yet; correct this machine's clock (NTP) if it is wrong, \
         else get one that is valid now and restart"
    )]
    NotYet(PathBuf),
    #[error(
        "{path}: the certificate does not name {name}, so other servers will refuse it; get one \
         for {name}, or delegate with well_known.server to a name that it has"
    )]
    OtherName { path: PathBuf, name: String },
    #[error("{path}: the certificate cannot be understood: {error}; get another one")]
    Odd { path: PathBuf, error: String },
}

/// A certificate chain and its key, from PEM files.
pub struct Identity {
    path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    config: Arc<ServerConfig>,
}

impl Identity {
    /// Reads both files. HTTP/2 is offered, then HTTP/1.1.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let path = certificate.to_owned();
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|error| match error {
                PemError::Io(error) => TlsError::Unreadable { path: path.clone(), error },
                error => TlsError::NotPem { path: path.clone(), error },
            })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path });
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
            let path = key.to_owned();
            match error {
                PemError::Io(error) => TlsError::Unreadable { path, error },
                PemError::NoItemsFound => TlsError::NoKey { path },
                error => TlsError::NotPem { path, error },
            }
        })?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(chain.clone(), private)
            })
            .map_err(|error| TlsError::Mismatch {
                certificate: path.clone(),
                key: key.to_owned(),
                error,
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { path, chain, config: Arc::new(config) })
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// What is wrong with the certificate at `now_ms`, for a server that others call `name`.
    pub fn complaints(&self, name: &ServerName, now_ms: u64) -> Vec<Complaint> {
        let path = || self.path.clone();
        let odd = |error: rustls::Error| Complaint::Odd { path: path(), error: error.to_string() };
        let certificate = match ParsedCertificate::try_from(&self.chain[0]) {
            Ok(certificate) => certificate,
            Err(error) => return vec![odd(error)],
        };
        let mut complaints = Vec::new();
        // Without roots this ends in "unknown issuer", but the dates are looked at first.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now_ms));
        let dates = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &RootCertStore::empty(),
            &self.chain[1..],
            now,
            provider().signature_verification_algorithms.all,
        );
        match dates {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => complaints.push(Complaint::Expired(path())),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => complaints.push(Complaint::NotYet(path())),
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) | Ok(()) => {}
            Err(error) => complaints.push(odd(error)),
        }
        let host = name.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let named = TlsName::try_from(bare)
            .is_ok_and(|tls_name| verify_server_name(&certificate, &tls_name).is_ok());
        if !named {
            complaints.push(Complaint::OtherName { path: path(), name: host.to_owned() });
        }
        complaints
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use exeunt_core::ruma::server_name;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// 2024-07-01.
    const NOW: u64 = 1_719_792_000_000;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(names: &[&str]) -> Self {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            let mut parameters = CertificateParams::new(names).unwrap();
            parameters.not_before = date_time_ymd(2024, 1, 1);
            parameters.not_after = date_time_ymd(2025, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            let files = Self(tempfile::tempdir().unwrap());
            fs::write(files.certificate(), certificate.pem()).unwrap();
            fs::write(files.key(), key.serialize_pem()).unwrap();
            files
        }

        fn certificate(&self) -> PathBuf {
            self.0.path().join("cert.pem")
        }

        fn key(&self) -> PathBuf {
            self.0.path().join("key.pem")
        }

        fn load(&self) -> Result<Identity, TlsError> {
            Identity::load(&self.certificate(), &self.key())
        }
    }

    #[test]
    fn a_good_certificate_gives_no_complaint() {
        let identity = Files::new(&["a.example", "127.0.0.1"]).load().unwrap();
        assert_eq!(identity.complaints(server_name!("a.example:8448"), NOW), []);
        assert_eq!(identity.complaints(server_name!("127.0.0.1:8449"), NOW), []);
        assert_eq!(identity.config().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn dates_and_names_are_complained_about() {
        let files = Files::new(&["a.example"]);
        let identity = files.load().unwrap();
        let year = 366 * 86_400_000;
        let complaints = |name, now| identity.complaints(name, now);
        let name = server_name!("a.example");
        assert_eq!(complaints(name, NOW + year), [Complaint::Expired(files.certificate())]);
        assert_eq!(complaints(name, NOW - year), [Complaint::NotYet(files.certificate())]);
        let other = complaints(server_name!("b.example"), NOW);
        let expected = Complaint::OtherName { path: files.certificate(), name: "b.example".into() };
        assert_eq!(other, [expected]);
        assert_eq!(complaints(server_name!("[::1]:8448"), NOW).len(), 1);
    }

    #[test]
    fn unusable_files_are_named() {
        let files = Files::new(&["a.example"]);
        let other = Files::new(&["a.example"]);
        let error = |result: Result<Identity, TlsError>| result.err().unwrap();
        let mixed = Identity::load(&files.certificate(), &other.key());
        assert!(matches!(error(mixed), TlsError::Mismatch { .. }));
        let swapped = Identity::load(&files.key(), &files.certificate());
        assert!(matches!(error(swapped), TlsError::NoCertificate { .. }));
        let no_key = Identity::load(&files.certificate(), &files.certificate());
        assert!(matches!(error(no_key), TlsError::NoKey { .. }));
        fs::remove_file(files.key()).unwrap();
        assert!(matches!(error(files.load()), TlsError::Unreadable { .. }));
    }
}
