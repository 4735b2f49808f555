//! The second wall between tenants: what raw SQL on a tenant's connection can see and change.

use dispatch_engine::ledger::{MessageTerms, Once, SealedMessage};
use dispatch_schemas::{
    api::{keys::Permission, lists::NewList, templates::NewTemplate},
    ids::{KeyId, TenantId},
    states::{Channel, Purpose, StopReason},
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _};

use crate::{
    InSchemas, engine, options,
    suite::{
        people::{address, crowd, email},
        sending::{ACCOUNT, content, to},
        world::World,
    },
};

impl World {
    /// Something of the tenant in every table.
    async fn furnished(&self) {
        let (ledger, tenant) = (&self.ledger, self.tenant);
        let list = self.list_of("crowd", &crowd(2)).await;
        self.upload(list).await.store(&[email(address(0)).named("P")]).await;
        self.drafted(&to(&[list])).await;
        let gate = self.email("away@x.eu");
        ledger.close_gates(tenant, Channel::Email, &[gate], StopReason::Unsubscribed).await.unwrap();
        let key = KeyId::from_random([7; 8]);
        ledger.create_key(key, tenant, "key", &[Permission::ALL[0]], [7; 32], i64::MAX).await.unwrap();
        let once = Once { route: "POST /v1/lists", key: "k".to_owned(), fingerprint: [1; 32] };
        let new = NewList { name: "more".to_owned(), source: self.source };
        ledger.create_list(tenant, &new, Some(&once)).await.unwrap();
        let template = NewTemplate { name: "receipt".to_owned(), source: content(Channel::Email) };
        let template = ledger.create_template(tenant, &template, None).await.unwrap().value;
        let message = SealedMessage {
            address_hash: self.email("anna@x.eu"),
            channel: Channel::Email,
            contact: self.sealed(ledger.contact_ids(1).await.unwrap(), &email("anna@x.eu")),
            variables: b"{}".to_vec(),
        };
        let terms = MessageTerms { source: self.source, purpose: Purpose::Service, account: ACCOUNT.to_owned() };
        ledger.create_message(tenant, &template, &terms, message, None).await.unwrap();
        let mut conn = engine(&self.schema()).await;
        for sql in [
            "INSERT INTO attempt (id, campaign_id, tenant_id, month, root_id, token, ranges, deliveries, open,
                                  claimed_at_ms) VALUES ($1, 1, $1, 202701, 1, '\\x00', '[]', 0, 0, 0)",
            "INSERT INTO waiting (campaign_id, seq, tenant_id, month, state, next_at_ms)
             VALUES ($1, 1, $1, 202701, 'unknown', 0)",
            "INSERT INTO stall (campaign_id, tenant_id, reason) VALUES ($1, $1, 'limit')",
            "INSERT INTO rate_limit (scope, windows, counted, version)
             VALUES ('tenant:' || $1, '{}', '{}', 1)",
            "INSERT INTO account_pause (account, since_ms, until_ms) VALUES ('account ' || $1, 0, 0)",
            "INSERT INTO operator_limit (kind, name, limits, set_at_ms) VALUES ('account', 'account ' || $1, '{}', 0)",
            "INSERT INTO fact (month, campaign_id, seq, tenant_id, first_at_ms, last_at_ms, reports, kind)
             VALUES (202701, 1, 1, $1, 0, 0, 1, 'delivered')",
            "INSERT INTO fact_tally (campaign_id, tenant_id, shard, kind, deliveries) VALUES (1, $1, 0, 'delivered', 1)",
            "INSERT INTO report_seen (id, seen_at_ms) VALUES (decode(md5($1::text), 'hex'), 0)",
            "INSERT INTO orphan (id, account, kind, at_ms, proves_acceptance, arrived_at_ms)
             VALUES (decode(md5($1::text), 'hex'), 'main', 'delivered', 0, false, 0)",
        ] {
            sqlx::query(sql).bind(tenant.0).execute(&mut conn).await.unwrap();
        }
    }
}

/// What the engine keeps for all tenants together: no tenant's connection sees it.
const ENGINES_OWN: [&str; 5] = ["account_pause", "operator_limit", "orphan", "rate_limit", "report_seen"];

/// The tables that hold anything of tenants, partitions too, with the column that says whose it is.
async fn tables(conn: &mut PgConnection) -> Vec<(String, &'static str)> {
    let rows = sqlx::query(
        "SELECT relname::text, relrowsecurity AND relforcerowsecurity FROM pg_class
          WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'p')
            AND relname NOT IN ('ledger', 'ledger_epoch', 'quarantine', 'scheduler', '_sqlx_migrations')
            AND relname <> ALL ($1) ORDER BY 1",
    )
    .bind(ENGINES_OWN.as_slice())
    .fetch_all(conn)
    .await
    .unwrap();
    rows.iter()
        .map(|row| {
            let name: String = row.get(0);
            assert!(row.get::<bool, _>(1), "{name} has no wall");
            let owner = if name == "tenant" { "id" } else { "tenant_id" };
            (name, owner)
        })
        .collect()
}

async fn number(conn: &mut PgConnection, sql: String) -> i64 {
    sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await.unwrap().get(0)
}

/// How many rows a statement changes; it may be refused instead.
async fn changed(conn: &mut PgConnection, sql: String) -> u64 {
    match sqlx::query(AssertSqlSafe(sql)).execute(conn).await {
        Ok(done) => done.rows_affected(),
        Err(error) => {
            let code =
                error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
            assert_eq!(code, "42501", "refused for another reason: {error}");
            0
        }
    }
}

async fn connection(world: &World, tenant: Option<TenantId>) -> PgConnection {
    let options = options(&world.schema());
    match tenant {
        Some(tenant) => options.options([("dispatch.tenant", tenant.0)]).connect().await.unwrap(),
        None => options.connect().await.unwrap(),
    }
}

#[tokio::test]
async fn a_tenants_connection_neither_sees_nor_changes_another_tenants_rows() {
    let mut world = World::new(&InSchemas).await;
    world.furnished().await;
    let first = world.tenant;
    world.become_tenant("second").await;
    let mut all = engine(&world.schema()).await;
    let mut own = connection(&world, Some(world.tenant)).await;
    let mut owners = connection(&world, Some(first)).await;
    let tables = tables(&mut all).await;
    assert!(tables.len() > 18, "with the partitions: {tables:?}");
    for (table, owner) in tables {
        let theirs = format!("SELECT count(*) FROM {table} WHERE {owner} = {}", first.0);
        let there = number(&mut all, theirs.clone()).await;
        // The deliveries and their facts are of one month.
        let is_next_month = ["delivery_202702", "fact_202702"].contains(&table.as_str());
        assert!(there > 0 || is_next_month, "nothing to see in {table}");
        assert_eq!(number(&mut own, theirs.clone()).await, 0, "{table} is seen");
        assert_eq!(number(&mut owners, theirs.clone()).await, there, "{table} is hidden from its owner");
        for sql in [
            format!("UPDATE {table} SET {owner} = {owner} WHERE {owner} = {}", first.0),
            format!("UPDATE {table} SET {owner} = {}", first.0),
            format!("DELETE FROM {table} WHERE {owner} = {}", first.0),
        ] {
            assert_eq!(changed(&mut own, sql.clone()).await, 0, "{sql}");
        }
        assert_eq!(number(&mut all, theirs).await, there, "{table} was changed");
    }
    let forged = format!(
        "INSERT INTO gate VALUES ({}, '\\x00', 'erased', 'email', 0), ({}, '\\x01', 'erased', 'email', 0)",
        first.0, world.tenant.0
    );
    assert_eq!(changed(&mut own, forged).await, 0);
}

#[tokio::test]
async fn what_the_engine_keeps_for_all_is_neither_seen_nor_changed_by_a_tenant() {
    let world = World::new(&InSchemas).await;
    world.furnished().await;
    let mut all = engine(&world.schema()).await;
    let mut own = connection(&world, Some(world.tenant)).await;
    for table in ENGINES_OWN {
        let rows = format!("SELECT count(*) FROM {table}");
        assert_eq!(number(&mut own, rows.clone()).await, 0, "{table} is seen");
        assert_eq!(changed(&mut own, format!("DELETE FROM {table}")).await, 0, "{table} is changed");
        assert_eq!(number(&mut all, rows).await, 1, "{table} was changed");
    }
    let forged = "INSERT INTO account_pause (account, since_ms, until_ms) VALUES ('forged', 0, 0)";
    assert_eq!(changed(&mut own, forged.to_owned()).await, 0);
}

#[tokio::test]
async fn a_connection_that_names_no_tenant_sees_nothing() {
    let world = World::new(&InSchemas).await;
    world.furnished().await;
    let mut all = engine(&world.schema()).await;
    let mut nobody = connection(&world, None).await;
    let tables = tables(&mut all).await.into_iter().map(|(table, _)| table);
    for table in tables.chain(ENGINES_OWN.map(str::to_owned)) {
        assert_eq!(number(&mut nobody, format!("SELECT count(*) FROM {table}")).await, 0, "{table} is seen");
        assert_eq!(changed(&mut nobody, format!("DELETE FROM {table}")).await, 0, "{table} is changed");
    }
}

#[tokio::test]
async fn a_transaction_leaves_no_tenant_behind() {
    // The ledger names the tenant for the length of a transaction, also of one that fails.
    let world = World::new(&InSchemas).await;
    let mut conn = connection(&world, None).await;
    for end in ["COMMIT", "ROLLBACK"] {
        let named = format!(
            "BEGIN; SELECT set_config('dispatch.tenant', '{}', true); SELECT name FROM tenant; {end}",
            world.tenant.0
        );
        sqlx::raw_sql(AssertSqlSafe(named)).execute(&mut conn).await.unwrap();
        assert_eq!(number(&mut conn, "SELECT count(*) FROM tenant".to_owned()).await, 0);
    }
}
