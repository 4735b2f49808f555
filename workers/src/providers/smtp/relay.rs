//! Where the relay is, and how it is spoken to: read from the settings once.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use hyper::Uri;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_rustls::TlsConnector;

use super::super::{AccountError, AccountSettings};

/// The port for submission (RFC 6409), and the one with TLS from the first octet (RFC 8314).
const SUBMISSION_PORT: u16 = 587;
const SUBMISSIONS_PORT: u16 = 465;

/// Longest wait the settings may ask for.
const TIMEOUT_S_MAX: u64 = 600;

/// A relay.
pub(super) struct Relay {
    /// Host name, or IP address without brackets.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// How the connection is protected.
    pub(super) security: Security,
    /// Who we are to it.
    pub(super) login: Option<Login>,
    /// For DNS and TCP together, and for the TLS handshake.
    pub(super) connect_timeout: Duration,
    /// For the dialogue before the first mail, and for each mail.
    pub(super) answer_timeout: Duration,
}

/// How a connection is protected.
pub(super) enum Security {
    /// Not at all: the relay is on this machine.
    Loopback,
    /// `STARTTLS` before anything is said; without it nothing is.
    StartTls(Tls),
    /// TLS from the first octet.
    Implicit(Tls),
}

/// What a handshake needs.
pub(super) struct Tls {
    /// Verifies the certificate and the name.
    pub(super) connector: TlsConnector,
    /// The name it must bear.
    pub(super) name: ServerName<'static>,
}

/// User and password.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: SecretString,
}

impl Relay {
    /// Reads the settings.
    pub(super) fn from_settings(settings: &AccountSettings, secret: SecretString) -> Result<Self, AccountError> {
        let url = settings.url.as_deref().ok_or_else(|| wrong("`url` is missing: set it to `smtp://host:port`"))?;
        let place = Place::parse(url)?;
        let security = match place.scheme {
            Scheme::Smtp if place.is_loopback() && settings.ca_file.is_none() => Security::Loopback,
            Scheme::Smtp => Security::StartTls(tls(&place.host, settings.ca_file.as_deref())?),
            Scheme::Smtps => Security::Implicit(tls(&place.host, settings.ca_file.as_deref())?),
        };
        Ok(Self {
            host: place.host,
            port: place.port,
            security,
            login: login(settings.user.as_deref(), secret)?,
            connect_timeout: timeout("connect_timeout_s", settings.connect_timeout_s)?,
            answer_timeout: timeout("answer_timeout_s", settings.answer_timeout_s)?,
        })
    }
}

enum Scheme {
    Smtp,
    Smtps,
}

struct Place {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Place {
    fn parse(url: &str) -> Result<Self, AccountError> {
        let malformed = || wrong("`url` must be `smtp://host:port` or `smtps://host:port`, and nothing more");
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("smtp") => (Scheme::Smtp, SUBMISSION_PORT),
            Some("smtps") => (Scheme::Smtps, SUBMISSIONS_PORT),
            _ => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') {
            return Err(wrong("`url` must not hold a user or password: set `user` and `key_file`"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(malformed());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(malformed());
        }
        Ok(Self { scheme, host, port: authority.port_u16().unwrap_or(default_port) })
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// Trusts the system's certificate authorities, and the one in `ca_file`.
fn tls(host: &str, ca_file: Option<&Path>) -> Result<Tls, AccountError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| wrong("the host in `url` is not a name that a certificate can bear"))?;
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca_file {
        let unreadable =
            |why: &dyn std::fmt::Display| wrong(&format!("`ca_file` {} cannot be used: {why}", file.display()));
        let mut certificates = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))?.peekable();
        if certificates.peek().is_none() {
            return Err(unreadable(&"it holds no PEM certificate"));
        }
        for certificate in certificates {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(wrong(
            "this system has no certificate authorities: install its `ca-certificates`, or set `ca_file`",
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
}

fn login(user: Option<&str>, password: SecretString) -> Result<Option<Login>, AccountError> {
    let Some(user) = user else { return Ok(None) };
    if password.expose_secret().is_empty() {
        return Err(wrong("`user` is set but there is no password: name the file that holds it in `key_file`"));
    }
    // RFC 4616: AUTH PLAIN parts user and password with NUL.
    if user.is_empty() || user.contains('\0') || password.expose_secret().contains('\0') {
        return Err(wrong("`user` must not be empty, and neither it nor the password may hold a NUL"));
    }
    Ok(Some(Login { user: user.to_owned(), password }))
}

fn timeout(setting: &str, seconds: u64) -> Result<Duration, AccountError> {
    if (1..=TIMEOUT_S_MAX).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(wrong(&format!("`{setting}` must be 1 to {TIMEOUT_S_MAX} seconds")))
    }
}

fn wrong(what: &str) -> AccountError {
    AccountError::Setting(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> AccountSettings {
        AccountSettings {
            kind: "smtp".to_owned(),
            url: Some(url.to_owned()),
            user: None,
            key_file: None,
            recipients_per_request: None,
            requests_open_max: 1,
            connect_timeout_s: 5,
            answer_timeout_s: 30,
            ca_file: None,
        }
    }

    fn relay(settings: &AccountSettings, password: &str) -> Result<Relay, String> {
        Relay::from_settings(settings, password.to_owned().into()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_loopback_is_spoken_to_in_clear() {
        for url in ["smtp://127.0.0.1:2525", "smtp://[::1]:2525", "smtp://localhost:2525", "smtp://127.9.9.9"] {
            assert!(matches!(relay(&settings(url), "").unwrap().security, Security::Loopback), "{url}");
        }
        // The system may have no authorities to trust; then there is an error, and still no connection in clear.
        for url in ["smtp://relay.example", "smtp://10.0.0.1:25", "smtp://localhost.example:25", "smtp://[fe80::1]"] {
            let security = relay(&settings(url), "").map(|relay| relay.security);
            assert!(matches!(security, Ok(Security::StartTls(_)) | Err(_)), "{url}");
        }
        let security = relay(&settings("smtps://127.0.0.1"), "").map(|relay| relay.security);
        assert!(matches!(security, Ok(Security::Implicit(_)) | Err(_)));
    }

    #[test]
    fn host_and_port_are_read() {
        let place = |url| Place::parse(url).map(|place| (place.host, place.port)).ok();
        assert_eq!(place("smtp://relay.example:25"), Some(("relay.example".to_owned(), 25)));
        assert_eq!(place("smtp://relay.example"), Some(("relay.example".to_owned(), SUBMISSION_PORT)));
        assert_eq!(place("smtps://[2001:db8::1]/"), Some(("2001:db8::1".to_owned(), SUBMISSIONS_PORT)));
        for url in
            ["", "relay.example", "https://x.example", "smtp://", "smtp://u:p@x.example", "smtp://x/y", "smtp://x?y"]
        {
            assert_eq!(place(url), None, "{url}");
        }
    }

    #[test]
    fn a_secret_in_the_url_is_not_repeated_in_the_error() {
        let error = relay(&settings("smtp://me:hunter2@relay.example"), "").err().unwrap();
        assert!(!error.contains("hunter2") && error.contains("key_file"), "{error}");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let with_user = |user: &str| AccountSettings { user: Some(user.to_owned()), ..settings("smtp://127.0.0.1") };
        assert!(relay(&with_user("us"), "secret").is_ok());
        assert!(relay(&with_user("us"), "").is_err());
        assert!(relay(&with_user("u\0s"), "secret").is_err());
        assert!(relay(&AccountSettings { answer_timeout_s: 0, ..settings("smtp://127.0.0.1") }, "").is_err());
        assert!(relay(&AccountSettings { url: None, ..settings("") }, "").is_err());
        let ca_file = Some("/nowhere/ca.pem".into());
        let error = relay(&AccountSettings { ca_file, ..settings("smtps://127.0.0.1") }, "").err().unwrap();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}
