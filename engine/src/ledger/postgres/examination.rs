//! A look at the server and the ledger on it, for whoever runs them. It changes nothing.

use dispatch_workers::clock::Clock;
use sqlx::{
    Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow},
};

use super::{
    PostgresLedger,
    connecting::{connect, is_local},
    epochs::{QUARANTINE, quarantine_of},
    months,
    open::{SETTINGS, check_schema},
};
use crate::ledger::{Quarantine, Result};

/// What was found on a server.
#[derive(Debug, Clone)]
pub struct Examined {
    /// Its version as it is written, such as `15.8`.
    pub version: String,
    /// The number of its major version.
    pub major: i32,
    /// A standby that can only be read.
    pub is_standby: bool,
    /// Transactions are read-only unless they say otherwise.
    pub is_read_only: bool,
    /// Who we are there.
    pub role: String,
    /// The role is a superuser.
    pub is_superuser: bool,
    /// The role passes row-level security.
    pub bypasses_walls: bool,
    /// The role may make tables, as each month needs one.
    pub may_create: bool,
    /// The version of TLS the connection is protected with.
    pub tls: Option<String>,
    /// The connection does not leave this machine.
    pub is_local: bool,
    /// What is off, or less than on, of the settings that a power loss asks for, by their names there.
    pub not_durable: Vec<String>,
    /// Connections that are free for a role that is no superuser.
    pub connections_free: i64,
    /// By how much its clock is ahead of this machine's, milliseconds.
    pub ahead_ms: i64,
    /// Its ledger, or why there is none that this version can use.
    pub ledger: std::result::Result<ExaminedLedger, String>,
}

/// What was found of a ledger of this version.
#[derive(Debug, Clone)]
pub struct ExaminedLedger {
    /// The number of its schema.
    pub schema: i64,
    /// The fingerprint of the key it was made with; none before its first start.
    pub fingerprint: Option<Vec<u8>>,
    /// Its tables that another role owns.
    pub others: Vec<String>,
    /// Its tables whose rows are not kept apart by tenant though they should be.
    pub without_walls: Vec<String>,
    /// Of this month and the next, those that have no partition: year * 100 + month.
    pub missing_months: Vec<i32>,
    /// The quarantine it is in.
    pub quarantine: Option<Quarantine>,
}

impl PostgresLedger {
    /// Looks at a server as the engine would use it.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses the role.
    pub async fn examine(options: &PgConnectOptions, clock: &dyn Clock) -> Result<Examined> {
        let engine = options.clone().application_name("dispatch doctor").options(SETTINGS);
        let mut conn = connect(&engine.options([("dispatch.scope", "engine")])).await?;
        let facts = facts(&mut conn).await?;
        let ahead_ms = ahead_ms(&mut conn, clock).await?;
        let ledger = match check_schema(&mut conn).await {
            Ok(()) => Ok(ledger(&mut conn, clock.now_ms().saturating_add(ahead_ms)).await?),
            Err(error) => Err(error.into_reason()),
        };
        conn.close().await?;
        Ok(Examined {
            version: facts.try_get("version")?,
            major: facts.try_get("major")?,
            is_standby: facts.try_get("is_standby")?,
            is_read_only: facts.try_get("is_read_only")?,
            role: facts.try_get("role")?,
            is_superuser: facts.try_get("is_superuser")?,
            bypasses_walls: facts.try_get("bypasses_walls")?,
            may_create: facts.try_get("may_create")?,
            tls: facts.try_get("tls")?,
            is_local: is_local(options),
            not_durable: facts.try_get("not_durable")?,
            connections_free: facts.try_get("connections_free")?,
            ahead_ms,
            ledger,
        })
    }
}

async fn facts(conn: &mut PgConnection) -> Result<PgRow> {
    // `synchronous_commit` is what the connection asked for itself: a pooler in between may have dropped it.
    let facts = sqlx::query(
        "SELECT split_part(current_setting('server_version'), ' ', 1) AS version,
                current_setting('server_version_num')::integer / 10000 AS major,
                pg_is_in_recovery() AS is_standby,
                current_setting('default_transaction_read_only') = 'on' AS is_read_only,
                current_user::text AS role, r.rolsuper AS is_superuser, r.rolbypassrls AS bypasses_walls,
                coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
                (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS tls,
                ARRAY(SELECT name FROM unnest(ARRAY['fsync', 'full_page_writes', 'synchronous_commit']) AS s (name)
                       WHERE current_setting(name) NOT IN ('on', 'remote_apply')) AS not_durable,
                current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
                    - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
                    AS connections_free
           FROM pg_roles r WHERE r.rolname = current_user",
    );
    Ok(facts.fetch_one(conn).await?)
}

/// By how much the server's clock is ahead. The answer was made between the two looks at ours.
async fn ahead_ms(conn: &mut PgConnection, clock: &dyn Clock) -> Result<i64> {
    let asked_ms = clock.now_ms();
    let row = sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetch_one(conn).await?;
    let server_ms: i64 = row.try_get(0)?;
    let answered_ms = clock.now_ms();
    // A difference within the time the question took is the network's.
    Ok(match server_ms {
        early if early < asked_ms => early - asked_ms,
        late if late > answered_ms => late - answered_ms,
        _ => 0,
    })
}

async fn ledger(conn: &mut PgConnection, now_ms: i64) -> Result<ExaminedLedger> {
    let wanted = months::this_and_next(now_ms);
    let row = sqlx::query(
        "WITH part AS (
             SELECT c.oid, c.relname::text AS name, c.relowner, c.relrowsecurity AND c.relforcerowsecurity AS has_wall
               FROM pg_class c
              WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relkind IN ('r', 'p'))
         SELECT (SELECT max(version) FROM _sqlx_migrations) AS schema,
                (SELECT key_fingerprint FROM ledger) AS fingerprint,
                ARRAY(SELECT name FROM part WHERE NOT pg_has_role(relowner, 'USAGE') ORDER BY name) AS others,
                ARRAY(SELECT name FROM part p WHERE NOT has_wall AND (name = 'tenant' OR EXISTS (
                          SELECT FROM pg_attribute a WHERE a.attrelid = p.oid AND a.attname = 'tenant_id'))
                       ORDER BY name) AS without_walls,
                ARRAY(SELECT m FROM unnest($1::integer[]) AS w (m)
                       WHERE to_regclass(format('%I.%I', current_schema(), 'delivery_' || m)) IS NULL) AS missing_months",
    )
    .bind(wanted.as_slice())
    .fetch_one(&mut *conn)
    .await?;
    let quarantine = sqlx::query(QUARANTINE).fetch_optional(conn).await?;
    Ok(ExaminedLedger {
        schema: row.try_get("schema")?,
        fingerprint: row.try_get("fingerprint")?,
        others: row.try_get("others")?,
        without_walls: row.try_get("without_walls")?,
        missing_months: row.try_get("missing_months")?,
        quarantine: quarantine.as_ref().map(quarantine_of).transpose()?,
    })
}
