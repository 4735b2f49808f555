//! The ledger on a server: the server, our role there, the tables, the clock.

use dispatch_workers::clock::SystemClock;
use sqlx::postgres::PgConnectOptions;

use super::{Check, Fingerprint, memory};
use crate::{
    ledger::{
        self,
        postgres::{CONNECTIONS_OF_A_PROCESS, Examined, ExaminedLedger, PostgresLedger, SERVER_MIN},
    },
    settings::Settings,
};

/// Clocks that differ by more are a finding, milliseconds: nothing depends on it, but logs and certificates do.
const SKEW_MAX_MS: i64 = 1_000;

pub(super) async fn examine(
    server: ledger::Result<PgConnectOptions>,
    settings: &Settings,
    checks: &mut Vec<Check>,
) -> Fingerprint {
    let examined = match server {
        Ok(options) => PostgresLedger::examine(&options, &SystemClock::new()).await,
        Err(error) => Err(error),
    };
    let examined = match examined {
        Ok(examined) => examined,
        Err(error) => {
            checks.push(Check::fail(
                "database.reached",
                error.into_reason(),
                "then run this again: nothing else of the database could be looked at",
            ));
            return Fingerprint::NotAsked;
        }
    };
    checks.push(Check::ok("database.reached", format!("{} answers", settings.ledger.url)));
    checks.extend([
        server_version(&examined),
        writable(&examined),
        durable(&examined),
        tls(&examined),
        role(&examined),
        connections(&examined),
        clock(&examined),
    ]);
    match &examined.ledger {
        Ok(ledger) => {
            checks.push(Check::ok("database.schema", format!("schema {} is this version's", ledger.schema)));
            checks.extend([rights(&examined, ledger), walls(ledger), months(ledger)]);
            checks.push(memory::quarantine(ledger.quarantine.as_ref()));
            ledger.fingerprint.clone().map_or(Fingerprint::None, Fingerprint::Known)
        }
        Err(why) => {
            checks.push(Check::refused("database.schema", why));
            Fingerprint::NotAsked
        }
    }
}

fn server_version(examined: &Examined) -> Check {
    let text = format!("PostgreSQL {}", examined.version);
    if examined.major < SERVER_MIN {
        let mend = format!("move the ledger to PostgreSQL {SERVER_MIN} or newer");
        return Check::fail("database.version", text, mend);
    }
    Check::ok("database.version", text)
}

fn writable(examined: &Examined) -> Check {
    if examined.is_standby {
        let mend = "point ledger.url at the primary";
        return Check::fail("database.writable", "the server is a standby that can only be read", mend);
    }
    if examined.is_read_only {
        let mend = "set default_transaction_read_only off for the database and the role";
        return Check::fail("database.writable", "the database can only be read", mend);
    }
    Check::ok("database.writable", "the server is a primary")
}

fn durable(examined: &Examined) -> Check {
    if examined.not_durable.is_empty() {
        return Check::ok(
            "database.durable",
            "fsync, full_page_writes and, for our connections, synchronous_commit are on",
        );
    }
    let mend = if examined.not_durable.iter().any(|name| name == "synchronous_commit") {
        "every connection of ours asks for synchronous_commit = on: let the pooler in between pass it on, or set it for \
         the role; set the others on in postgresql.conf"
    } else {
        "set it on in postgresql.conf and restart the server: a power loss could take back what was sent, and people be \
         written to twice"
    };
    let text = format!("{} is not on", examined.not_durable.join(", "));
    Check::fail("database.durable", text, mend)
}

fn tls(examined: &Examined) -> Check {
    match &examined.tls {
        Some(version) => Check::ok("database.tls", format!("the connection is protected ({version})")),
        None if examined.is_local => Check::ok("database.tls", "the connection does not leave this machine"),
        None => Check::fail(
            "database.tls",
            "contacts and keys cross the network in clear",
            "set ssl = on at the server, and sslmode=verify-full in ledger.url",
        ),
    }
}

fn role(examined: &Examined) -> Check {
    let role = &examined.role;
    let what = match (examined.is_superuser, examined.bypasses_walls) {
        (true, _) => "is a superuser",
        (false, true) => "has BYPASSRLS",
        (false, false) => {
            return Check::ok("database.role", format!("`{role}` is no superuser and does not bypass row security"));
        }
    };
    Check::fail(
        "database.role",
        format!("`{role}` {what}, so the second wall between tenants does not hold for it"),
        format!("ALTER ROLE \"{role}\" NOSUPERUSER NOBYPASSRLS, or give Dispatch a role of its own"),
    )
}

fn connections(examined: &Examined) -> Check {
    let (free, wanted) = (examined.connections_free, i64::from(CONNECTIONS_OF_A_PROCESS));
    let text = format!("{free} are free; a process takes up to {wanted}");
    if free < wanted {
        let mend = format!("raise the server's max_connections to {wanted} for each process and some for people");
        return Check::warn("database.connections", text, mend);
    }
    Check::ok("database.connections", text)
}

fn clock(examined: &Examined) -> Check {
    let (ahead_ms, apart_ms) = (examined.ahead_ms, examined.ahead_ms.abs());
    if apart_ms <= SKEW_MAX_MS {
        return Check::ok("database.clock", format!("this machine's and the server's are {apart_ms} ms apart"));
    }
    let where_it_is = if ahead_ms > 0 { "behind" } else { "ahead of" };
    Check::warn(
        "database.clock",
        format!("this machine's clock is {}.{:03} s {where_it_is} the server's", apart_ms / 1_000, apart_ms % 1_000),
        "let both follow NTP (timedatectl set-ntp true): Dispatch goes by the server's, the log of this machine does not",
    )
}

fn rights(examined: &Examined, ledger: &ExaminedLedger) -> Check {
    let role = &examined.role;
    if !ledger.others.is_empty() {
        let text = format!("`{role}` does not own {}", ledger.others.join(", "));
        return Check::fail("database.rights", text, format!("ALTER TABLE … OWNER TO \"{role}\" for each"));
    }
    if !examined.may_create {
        let text = format!("`{role}` may not make tables, and each month needs one");
        return Check::fail("database.rights", text, format!("GRANT CREATE ON SCHEMA … TO \"{role}\""));
    }
    Check::ok("database.rights", format!("`{role}` owns the tables and may make each month's"))
}

fn walls(ledger: &ExaminedLedger) -> Check {
    if ledger.without_walls.is_empty() {
        return Check::ok("database.walls", "every tenant's rows are kept apart");
    }
    let text = format!("the rows of {} are not kept apart by tenant", ledger.without_walls.join(", "));
    Check::fail("database.walls", text, "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY for each")
}

fn months(ledger: &ExaminedLedger) -> Check {
    if ledger.missing_months.is_empty() {
        return Check::ok("database.months", "this month's and the next month's deliveries have their partitions");
    }
    let missing: Vec<String> = ledger.missing_months.iter().map(ToString::to_string).collect();
    Check::warn(
        "database.months",
        format!("there is no partition for {}", missing.join(" and ")),
        "run `dispatch migrate`, or wait: the engine makes one when it first needs it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    fn well() -> Examined {
        Examined {
            version: "15.8".to_owned(),
            major: 15,
            is_standby: false,
            is_read_only: false,
            role: "dispatch".to_owned(),
            is_superuser: false,
            bypasses_walls: false,
            may_create: true,
            tls: None,
            is_local: true,
            not_durable: Vec::new(),
            connections_free: 90,
            ahead_ms: 0,
            ledger: Err("no ledger".to_owned()),
        }
    }

    /// What a check says of a server that is well but for this.
    fn found(check: fn(&Examined) -> Check, change: impl FnOnce(&mut Examined)) -> (Level, String) {
        let mut examined = well();
        assert_eq!(check(&examined).level, Level::Ok);
        change(&mut examined);
        let check = check(&examined);
        (check.level, check.to_string())
    }

    #[test]
    fn a_server_that_breaks_a_promise_fails_with_what_to_do() {
        for ((level, said), words) in [
            (found(server_version, |it| it.major = 14), "PostgreSQL 15 or newer"),
            (found(writable, |it| it.is_standby = true), "point ledger.url at the primary"),
            (found(writable, |it| it.is_read_only = true), "default_transaction_read_only off"),
            (found(durable, |it| it.not_durable = vec!["fsync".to_owned()]), "restart the server"),
            (found(durable, |it| it.not_durable = vec!["synchronous_commit".to_owned()]), "pooler"),
            (found(tls, |it| it.is_local = false), "sslmode=verify-full"),
            (found(role, |it| it.is_superuser = true), "NOSUPERUSER"),
            (found(role, |it| it.bypasses_walls = true), "NOBYPASSRLS"),
        ] {
            assert_eq!(level, Level::Fail, "{said}");
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn clocks_more_than_a_second_apart_and_few_connections_are_warned_of() {
        assert_eq!(found(clock, |it| it.ahead_ms = -1_000).0, Level::Ok);
        let (level, said) = found(clock, |it| it.ahead_ms = 90_061);
        assert!(level == Level::Warn && said.contains("is 90.061 s behind the server's"), "{said}");
        let (level, said) = found(clock, |it| it.ahead_ms = -1_001);
        assert!(level == Level::Warn && said.contains("is 1.001 s ahead of the server's"), "{said}");
        let (level, said) = found(connections, |it| it.connections_free = 3);
        assert!(level == Level::Warn && said.contains("max_connections"), "{said}");
    }
}
