//! `exeunt health`: what a container's health check runs, where there is no curl.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, OtherError, SignatureScheme,
    StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use crate::{config::Config, failure::Failure};

/// How long connecting, and each read and write, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of an answer: its status line and more.
const MAX_ANSWER: u64 = 4096;
const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const HEALTHY: &str = "HTTP/1.1 200 ";

/// Asks the first listener of the server that runs with this configuration.
pub fn check(config: &Config) -> Result<String, Failure> {
    let listener = config.listeners.first().expect("a configuration has a listener");
    let address = reachable(listener.bind);
    let failure = |text: String| Failure::Unhealthy { address, text };
    let answer = ask(address, listener.certificate.as_deref())
        .map_err(|error| failure(format!("no answer: {error}")))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.starts_with(HEALTHY) {
        return Ok("ok\n".into());
    }
    Err(failure(format!("answered {status:?}; see its log")))
}

/// A listener on every address is reached over loopback.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

fn ask(address: SocketAddr, certificate: Option<&Path>) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Some(certificate) = certificate else { return exchange(stream) };
    let tls = ClientConnection::new(trusting_only(certificate)?, ServerName::from(address.ip()))
        .map_err(io::Error::other)?;
    exchange(StreamOwned::new(tls, stream))
}

fn exchange(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(REQUEST)?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
        // The answer is what counts, not how the connection ends after it.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// The listener is known by its certificate: no name and no authority is needed.
fn trusting_only(path: &Path) -> io::Result<Arc<ClientConfig>> {
    let pinned = Pinned {
        certificate: CertificateDer::from_pem_file(path).map_err(io::Error::other)?,
        path: path.to_owned(),
        provider: Arc::new(ring::default_provider()),
    };
    let config = ClientConfig::builder_with_provider(pinned.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Accepts one certificate, and its owner's signature.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    path: PathBuf,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        let other = io::Error::other(format!(
            "it shows another certificate than {}; restart it to use the new one",
            self.path.display()
        ));
        Err(rustls::Error::Other(OtherError(Arc::new(other))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
