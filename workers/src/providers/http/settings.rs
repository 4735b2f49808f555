//! What the settings of an HTTP account must hold.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use reqwest::{Certificate, Url};

use crate::providers::{AccountError, AccountSettings};

/// Requests open at once: what one account of a provider takes, and what one process has sockets for.
const REQUESTS_OPEN: RangeInclusive<usize> = 1..=1_024;

/// Times to connect and to be answered, seconds. No longer than an open attempt may last.
const TIMEOUT_S: RangeInclusive<u64> = 1..=300;

/// Largest certificate file that is read.
const CA_FILE_BYTES_MAX: u64 = 1 << 20;

/// Refuses numbers out of range and settings that mean nothing to an HTTP provider.
pub(super) fn check(settings: &AccountSettings) -> Result<(), AccountError> {
    let kind = &settings.kind;
    if settings.user.is_some() {
        return Err(AccountError::Setting(format!("`user` means nothing to {kind}: its API key alone is the account")));
    }
    within("requests_open_max", settings.requests_open_max, &REQUESTS_OPEN)?;
    within("connect_timeout_s", settings.connect_timeout_s, &TIMEOUT_S)?;
    within("answer_timeout_s", settings.answer_timeout_s, &TIMEOUT_S)
}

/// The recipients of one request: what the settings say, else `default`; at most what the provider takes.
pub(in crate::providers) fn recipients_per_request(
    settings: &AccountSettings,
    default: usize,
    max: usize,
) -> Result<usize, AccountError> {
    let wanted = settings.recipients_per_request.unwrap_or(default);
    within("recipients_per_request", wanted, &(1..=max))?;
    Ok(wanted)
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(
    name: &str,
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), AccountError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(AccountError::Setting(format!("`{name}` is {value}; it must be {} to {}", range.start(), range.end())))
}

/// Where the account is reached. An API key and people's addresses go there: TLS, unless it is this machine.
pub(super) fn base_url(settings: &AccountSettings, default_url: Option<&str>) -> Result<Url, AccountError> {
    let kind = &settings.kind;
    let Some(text) = settings.url.as_deref().or(default_url) else {
        return Err(AccountError::Setting(format!(
            "`url` is missing: {kind} gives each account a host of its own; write the base URL shown in its portal, \
             such as `url = \"https://xxxxxx.api.infobip.com\"`"
        )));
    };
    let wrong = |what: &str| AccountError::Setting(format!("`url` of this {kind} account {what}"));
    let url = Url::parse(text).map_err(|_| wrong("is not a URL; write `https://` and the host"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_this_machine(&url) => {}
        "http" => return Err(wrong("is plain http; that is taken for 127.0.0.1, [::1] and localhost only")),
        _ => return Err(wrong("must begin with `https://`")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a user or password; the API key belongs in `key_file`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must end with the host or a path, without `?` or `#`"));
    }
    Ok(url)
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let v6 = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || v6.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback())
}

/// The certificate authorities to trust beside the system's.
pub(super) fn certificates(settings: &AccountSettings) -> Result<Vec<Certificate>, AccountError> {
    let Some(file) = &settings.ca_file else { return Ok(Vec::new()) };
    let wrong = |what: &str| AccountError::Setting(format!("`ca_file` {} {what}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| wrong(&format!("cannot be read: {error}")))?.len();
    if length > CA_FILE_BYTES_MAX {
        return Err(wrong("is larger than 1 MiB; it must hold certificates in PEM form, and nothing else"));
    }
    let pem = std::fs::read(file).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|_| wrong("holds something that is not a PEM certificate"))?;
    if certificates.is_empty() {
        return Err(wrong("holds no certificate; it must hold at least one in PEM form"));
    }
    Ok(certificates)
}
