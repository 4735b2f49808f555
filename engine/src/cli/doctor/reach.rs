//! A connection to a host, with TLS or without, on which nothing is asked.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// How long a host may take to answer: far longer than a healthy one does from anywhere.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What is asked of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protection<'a> {
    /// Nothing.
    None,
    /// TLS with a certificate of the system's authorities, or of the one in this PEM file.
    Tls(Option<&'a Path>),
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, or says why not.
pub(super) async fn connect(host: &str, port: u16, protection: Protection<'_>) -> Result<Box<dyn Stream>, String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connecting = async {
        let tcp = TcpStream::connect((host, port)).await.map_err(|error| format!("no connection ({error})"))?;
        let Protection::Tls(authority) = protection else { return Ok(Box::new(tcp) as Box<dyn Stream>) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| "its name is none that a certificate can bear".to_owned())?;
        let protected = connector(authority)?.connect(name, tcp).await;
        Ok(Box::new(protected.map_err(|error| format!("no TLS ({error})"))?) as Box<dyn Stream>)
    };
    let within = tokio::time::timeout(CONNECT_WITHIN, connecting).await;
    within.unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_WITHIN.as_secs())))
}

fn connector(authority: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = authority {
        let unreadable = |error: &dyn std::fmt::Display| format!("{} cannot be used ({error})", file.display());
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up ({error})"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
