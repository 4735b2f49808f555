//! What a scene needs where callbacks are taken.

use std::{collections::BTreeMap, net::SocketAddr, os::unix::process::ExitStatusExt as _};

use dispatch_engine::{engine::open_ledger, ledger::postgres::connect_options};
use dispatch_tests::support::{engine_process::EngineProcess, platform::Platform};
use dispatch_workers::abort::AbortPoint;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::scene::{Mode, Part, SIGABRT, Scene, TENANT, WITHIN, settings};

/// A ledger that takes nothing until it is let go.
pub(crate) enum Held {
    File(SqliteConnection),
    Server(PgConnection),
}

impl Held {
    pub(crate) async fn release(self) {
        match self {
            Self::File(mut conn) => {
                sqlx::query("ROLLBACK").execute(&mut conn).await.unwrap();
                conn.close().await.unwrap();
            }
            Self::Server(conn) => conn.close().await.unwrap(),
        }
    }
}

impl Scene {
    /// The settings with which the account of the play is called back at an address.
    pub(crate) fn callback_variables(&self, address: SocketAddr) -> Vec<(String, String)> {
        self.stage.callback_variables(&[self.play.kind], address)
    }

    /// Starts a process that takes callbacks and does nothing else.
    pub(crate) fn takes_callbacks(&self, variables: &[(String, String)]) -> EngineProcess {
        let variables: Vec<_> = self.variables.iter().chain(variables).cloned().collect();
        EngineProcess::start_with(&self.stage.settings_file, None, &["--roles", "callbacks"], &variables)
    }

    /// Starts one that dies when it comes to a place, and waits for that.
    pub(crate) async fn dies_taking_callbacks(&self, variables: &[(String, String)], point: AbortPoint) {
        let mut variables = variables.to_vec();
        variables.push(("DISPATCH_ABORT_AT".to_owned(), point.name().to_owned()));
        let what = format!("{:?}: the process dies at {}", self.play, point.name());
        let status = self.takes_callbacks(&variables).ended(&what, WITHIN).await;
        assert_eq!(status.signal(), Some(SIGABRT), "{what}");
    }

    /// Starts the worker; in one process, one that takes callbacks too.
    pub(crate) async fn start_hearing(&self, change: &[(&str, &str)]) -> EngineProcess {
        if self.play.mode == Mode::Production {
            return self.start(Part::Worker, &[]).await;
        }
        let change = change.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let variables: Vec<_> = self.variables.iter().cloned().chain(change).collect();
        let process = EngineProcess::start_with(&self.stage.settings_file, None, &[], &variables);
        process.ready().await;
        process
    }

    /// How many recipients the ledger knows a report of, by kind; in one process, when no engine runs.
    pub(crate) async fn reported(&self) -> BTreeMap<String, u64> {
        let own = match &self.opened {
            Some(_) => None,
            None => Some(open_ledger(&settings(&self.stage, &self.variables)).await.unwrap()),
        };
        let opened = self.opened.as_ref().or(own.as_ref()).unwrap();
        let reported = Platform::new(opened, TENANT).await.progress(self.campaign).await.reported;
        if let Some(own) = own {
            own.ledger.close().await;
        }
        reported
    }

    /// Lets the ledger take nothing.
    pub(crate) async fn hold_ledger(&self) -> Held {
        match &self.services {
            Some(services) => {
                let options = connect_options(&services.ledger_url(None)).unwrap().disable_statement_logging();
                let mut conn = options.connect().await.unwrap();
                for sql in ["BEGIN", "LOCK TABLE report_seen IN ACCESS EXCLUSIVE MODE"] {
                    sqlx::query(sql).execute(&mut conn).await.unwrap();
                }
                Held::Server(conn)
            }
            None => {
                let options =
                    SqliteConnectOptions::new().filename(self.stage.ledger_file()).disable_statement_logging();
                let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::query("BEGIN IMMEDIATE").execute(&mut conn).await.unwrap();
                Held::File(conn)
            }
        }
    }
}
