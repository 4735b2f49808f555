//! The address of the server, and what a failed connection says.

use std::net::IpAddr;

use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::ledger::{LedgerError, Result};

const FORM: &str = "wanted: `postgres://role@host/database?sslmode=verify-full`";

/// Parameters of an address, by their names in libpq
/// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>).
const PARAMETERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "application_name",
    "options",
];

/// The server at this address, `postgres://role:password@host:port/database?sslmode=verify-full`. A password that is
/// left out is looked for in `PGPASSWORD` and `~/.pgpass`.
///
/// # Errors
/// [`LedgerError::Open`], without any part of the address, when it is none, or when the server's certificate would not
/// be checked though it is another machine's: contacts and keys would cross the network for anybody to read.
pub fn connect_options(url: &str) -> Result<PgConnectOptions> {
    let options = connect_options_without_tls(url)?;
    if is_local(&options) || matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
        return Ok(options);
    }
    Err(LedgerError::Open(
        "the ledger's server is another machine and its certificate would not be checked; write \
         `?sslmode=verify-full` at the end of ledger.url, and `&sslrootcert=…` with the file of your authority if it is \
         not a public one"
            .to_owned(),
    ))
}

/// The server at this address, whether or not the connection to it is protected: for a network of its own.
///
/// # Errors
/// [`LedgerError::Open`], without any part of the address, when it is none.
pub fn connect_options_without_tls(url: &str) -> Result<PgConnectOptions> {
    let is_known = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        PARAMETERS.contains(&name) || name.starts_with("options[") || name.starts_with("options%5B")
    };
    let query = url.split_once('?').map_or("", |(_, query)| query);
    // The parser would write what it does not know into the log.
    if !query.split('&').filter(|pair| !pair.is_empty()).all(is_known) {
        return Err(LedgerError::Open(format!(
            "ledger.url has a parameter that is not known (there are {}), or a `?` in its password that must be written \
             `%3F`; {FORM}",
            PARAMETERS.join(", ")
        )));
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(LedgerError::Open(format!("ledger.url is not the address of a PostgreSQL server; {FORM}")));
    }
    // Its words may quote the password.
    url.parse().map_err(|_| {
        LedgerError::Open(format!(
            "ledger.url cannot be read; {FORM}, with `%40`, `%2F`, `%3A`, `%3F` or `%23` for an `@`, `/`, `:`, `?` or \
             `#` in the password"
        ))
    })
}

/// Whether the connection does not leave this machine.
pub(super) fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Connects, or says what is wrong with the address.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    PgConnection::connect_with(options).await.map_err(|error| unreachable(options, error))
}

fn unreachable(options: &PgConnectOptions, error: sqlx::Error) -> LedgerError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
    let (host, port, role) = (options.get_host(), options.get_port(), options.get_username());
    let database = options.get_database().unwrap_or(role);
    match code.as_str() {
        "28000" | "28P01" => LedgerError::Open(format!(
            "the server {host}:{port} refuses the role `{role}` or its password; check both in ledger.url and the \
             server's pg_hba.conf"
        )),
        "3D000" => LedgerError::Open(format!(
            "the server {host}:{port} has no database `{database}`; make it with `CREATE DATABASE`, or name another in \
             ledger.url"
        )),
        "42501" => LedgerError::Open(format!(
            "the role `{role}` may not connect to the database `{database}` on {host}:{port}; grant it CONNECT"
        )),
        _ => {
            let reason = LedgerError::from(error).into_reason();
            LedgerError::Unavailable(format!("the server {host}:{port} cannot be reached: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match connect_options(url) {
            Err(LedgerError::Open(told)) => told,
            other => panic!("{url} was not refused: {:?}", other.map(drop)),
        }
    }

    #[test]
    fn another_machine_is_reached_with_its_certificate_checked_only() {
        for url in [
            "postgres://dispatch@db.example.org/dispatch",
            "postgres://dispatch@db.example.org/dispatch?sslmode=require",
            "postgres://dispatch@10.0.0.7/dispatch?sslmode=verify-ca",
            "postgres://dispatch@localhost/dispatch?hostaddr=10.0.0.7",
            "postgres://dispatch@localhost.example.org/dispatch",
        ] {
            assert!(refused(url).contains("sslmode=verify-full"));
            connect_options_without_tls(url).unwrap();
        }
        connect_options("postgresql://dispatch@db.example.org:5433/dispatch?sslmode=verify-full").unwrap();
    }

    #[test]
    fn this_machine_needs_no_certificate() {
        for url in [
            "postgres://dispatch@localhost/dispatch",
            "postgres://dispatch@127.0.0.1:5433/dispatch",
            "postgres://dispatch@[::1]/dispatch",
            "postgres://dispatch@%2Fvar%2Frun%2Fpostgresql/dispatch",
            "postgres:///dispatch?host=/var/run/postgresql",
        ] {
            connect_options(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }

    #[test]
    fn a_refusal_never_quotes_the_password() {
        for url in [
            "postgres://me:hunter2@db.example.org/dispatch",
            "postgres://me:hunter2@localhost:hunter2/dispatch",
            "postgres://me:hunter2?hunter2=hunter2@localhost/dispatch",
            "postgres://me@localhost/dispatch?pasword=hunter2",
            "hunter2",
            "sqlite:hunter2",
        ] {
            assert!(!refused(url).contains("hunter2"));
        }
    }
}
