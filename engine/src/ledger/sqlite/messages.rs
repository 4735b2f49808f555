//! Single messages: deliveries of a stream that always runs.

use async_trait::async_trait;
use dispatch_schemas::{
    api::{campaigns::Reports, messages::MessageStatus, templates::StoredTemplate, time::Moment},
    ids::{CampaignId, ContactId, ListId, TenantId},
    states::{Channel, DeliveryState},
};
use dispatch_workers::{
    clock::Entropy,
    sealing::{Column, TenantKeys},
};
use sqlx::{Row as _, SqliteConnection};

use super::{SqliteLedger, facts::facts_of, lists::check_source, rows, tally::Moves, tenants::require_open};
use crate::ledger::{
    LedgerError, MessageTerms, Messages, Once, Replayable, Result, SealedMessage,
    campaign_rules::{channel_of, message_id, stream_key},
};

/// The stream a single message joins: made with its first one.
struct Stream<'a> {
    tenant: TenantId,
    template: &'a StoredTemplate,
    terms: MessageTerms,
    /// Used if the stream or the list is new.
    ids: (CampaignId, ListId),
}

#[async_trait]
impl Messages for SqliteLedger {
    async fn create_message(
        &self,
        tenant: TenantId,
        template: &StoredTemplate,
        terms: &MessageTerms,
        message: SealedMessage,
        once: Option<&Once>,
    ) -> Result<Replayable<(CampaignId, i64)>> {
        let keys = super::Tenants::tenant_keys(self, tenant).await?;
        let ids = (CampaignId::from_random(self.draw()), ListId::from_random(self.draw()));
        let (template, terms, once) = (template.clone(), terms.clone(), once.cloned());
        let (entropy, now_ms) = (self.entropy.clone(), self.now_ms());
        self.writer
            .run("create_message", move |conn| {
                Box::pin(async move {
                    if let Some(earlier) = rows::replay(conn, tenant, once.as_ref(), now_ms).await? {
                        return Ok(earlier);
                    }
                    require_open(conn, tenant).await?;
                    let stream = Stream { tenant, template: &template, terms, ids };
                    let stored = store(conn, &stream, message, &keys, entropy.as_ref(), now_ms).await?;
                    rows::remember(conn, tenant, once.as_ref(), now_ms, stored).await
                })
            })
            .await
    }

    async fn message(&self, tenant: TenantId, campaign: CampaignId, seq: i64) -> Result<MessageStatus> {
        let row = sqlx::query(
            "SELECT d.state, d.detail, d.key_epoch, d.updated_at_ms FROM campaign c
               JOIN delivery d ON d.campaign_id = c.id AND d.seq = ?3
              WHERE c.id = ?1 AND c.tenant_id = ?2 AND c.lane = 'transactional'",
        )
        .bind(campaign.0)
        .bind(tenant.0)
        .bind(seq)
        .fetch_optional(&self.readers)
        .await?
        .ok_or(LedgerError::NotFound("message"))?;
        let detail: String = row.try_get("detail")?;
        let state = rows::word(&row, "state")?;
        let facts = facts_of(&self.readers, campaign, &[seq]).await?.remove(&seq).unwrap_or_default();
        Ok(MessageStatus {
            id: message_id(&self.send_keys, campaign, seq),
            state,
            status: facts.status(state),
            detail: (!detail.is_empty()).then_some(detail),
            updated_at: Moment::from_ms(row.try_get("updated_at_ms")?),
            reports: Reports::of(&facts),
        })
    }
}

async fn store(
    conn: &mut SqliteConnection,
    stream: &Stream<'_>,
    message: SealedMessage,
    keys: &TenantKeys,
    entropy: &dyn Entropy,
    now_ms: i64,
) -> Result<(CampaignId, i64)> {
    check_source(conn, stream.tenant, stream.terms.source).await?;
    let list = list(conn, stream, now_ms).await?;
    let campaign = campaign(conn, stream, now_ms).await?;
    let (contact, key) = contact(conn, stream.tenant, list, &message).await?;
    let sealed = keys.open_contact(contact, &key).map_err(|_| LedgerError::Corrupt("a contact's key"))?.seal(
        Column::Message,
        &message.variables,
        entropy,
    );
    let seq: i64 = sqlx::query("UPDATE campaign SET next_seq = next_seq + 1 WHERE id = ? RETURNING next_seq - 1")
        .bind(campaign.0)
        .fetch_one(&mut *conn)
        .await?
        .try_get(0)?;
    sqlx::query(
        "INSERT INTO delivery (campaign_id, seq, contact_id, state, updated_at_ms) VALUES (?, ?, ?, 'ready', ?)",
    )
    .bind(campaign.0)
    .bind(seq)
    .bind(contact.0)
    .bind(now_ms)
    .execute(&mut *conn)
    .await?;
    sqlx::query("INSERT INTO message (campaign_id, seq, sealed) VALUES (?, ?, ?)")
        .bind(campaign.0)
        .bind(seq)
        .bind(sealed)
        .execute(&mut *conn)
        .await?;
    let mut moves = Moves::default();
    moves.entered(DeliveryState::Ready, "", 1);
    moves.write(campaign, conn).await?;
    Ok((campaign, seq))
}

async fn list(conn: &mut SqliteConnection, stream: &Stream<'_>, now_ms: i64) -> Result<ListId> {
    // One per source, so that every person's source is known.
    let name = stream.terms.source.to_string();
    sqlx::query(
        "INSERT INTO list (id, tenant_id, source_id, kind, name, created_at_ms) VALUES (?, ?, ?, 'messages', ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind(stream.ids.1.0)
    .bind(stream.tenant.0)
    .bind(stream.terms.source.0)
    .bind(&name)
    .bind(now_ms)
    .execute(&mut *conn)
    .await?;
    let row = sqlx::query("SELECT id FROM list WHERE tenant_id = ? AND kind = 'messages' AND name = ?")
        .bind(stream.tenant.0)
        .bind(name)
        .fetch_one(conn)
        .await?;
    Ok(ListId(row.try_get(0)?))
}

async fn campaign(conn: &mut SqliteConnection, stream: &Stream<'_>, now_ms: i64) -> Result<CampaignId> {
    let key = stream_key(stream.tenant, stream.template, &stream.terms);
    sqlx::query(
        "INSERT INTO campaign (id, tenant_id, name, lane, state, channel, purpose, unknown_policy, account, content,
                               stream_key, created_at_ms, launched_at_ms, expanded)
         VALUES (?1, ?2, ?3, 'transactional', 'running', ?4, ?5, 'at_least_once', ?6, ?7, ?8, ?9, ?9, 1)
         ON CONFLICT DO NOTHING",
    )
    .bind(stream.ids.0.0)
    .bind(stream.tenant.0)
    .bind(&stream.template.template.name)
    .bind(channel_of(&stream.template.template.source).as_str())
    .bind(stream.terms.purpose.as_str())
    .bind(&stream.terms.account)
    .bind(rows::to_json(&stream.template.template.source)?)
    .bind(&key)
    .bind(now_ms)
    .execute(&mut *conn)
    .await?;
    let row = sqlx::query("SELECT id FROM campaign WHERE stream_key = ?").bind(key).fetch_one(conn).await?;
    Ok(CampaignId(row.try_get(0)?))
}

/// The person in the list, stored if new; with the wrapped key.
async fn contact(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    list: ListId,
    message: &SealedMessage,
) -> Result<(ContactId, Vec<u8>)> {
    let new = &message.contact;
    let (email, phone) = (new.email.as_ref(), new.phone.as_ref());
    sqlx::query(
        "INSERT INTO contact (id, tenant_id, list_id, key, email, phone, fields, email_hash, phone_hash,
                              email_destination, phone_destination)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(new.id.0)
    .bind(tenant.0)
    .bind(list.0)
    .bind(new.key.as_slice())
    .bind(email.map(|(sealed, _)| sealed.as_slice()))
    .bind(phone.map(|(sealed, _)| sealed.as_slice()))
    .bind(new.fields.as_deref())
    .bind(email.map(|(_, hash)| hash.0.to_vec()))
    .bind(phone.map(|(_, hash)| hash.0.to_vec()))
    .bind(new.email_destination)
    .bind(new.phone_destination)
    .execute(&mut *conn)
    .await?;
    let row = sqlx::query(match message.channel {
        Channel::Email => "SELECT id, key FROM contact WHERE email_hash = ? AND list_id = ?",
        Channel::Sms => "SELECT id, key FROM contact WHERE phone_hash = ? AND list_id = ? AND email_hash IS NULL",
    })
    .bind(message.address_hash.0.to_vec())
    .bind(list.0)
    .fetch_one(conn)
    .await?;
    Ok((ContactId(row.try_get("id")?), row.try_get("key")?))
}
