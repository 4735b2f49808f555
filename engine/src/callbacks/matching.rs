//! Which delivery a report is about.
//!
//! By the delivery's own key first, then by the key of its request and, within that, by the provider's id or the address.
//! An address alone never leads to a delivery. And only deliveries of campaigns that the account itself sends are found:
//! who can call in the name of one account changes nothing that another has sent.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use dispatch_schemas::{
    address::{EmailAddress, PhoneNumber},
    ids::{CampaignId, TenantId},
    states::Channel,
};
use dispatch_workers::{
    message::SendKey,
    providers::callbacks::Traces,
    sealing::{AddressHash, SendKeys, TenantKeys},
};

use crate::ledger::{Ledger, Member, Reported, Result};

/// A report that looks for its delivery.
pub(super) struct Search<'a> {
    /// What it says about it.
    pub(super) traces: &'a Traces,
    /// The address it is about, as its provider writes it.
    pub(super) address: Option<&'a str>,
}

/// Finds the deliveries of an account's reports, in their order.
pub(super) async fn find(
    ledger: &dyn Ledger,
    send_keys: &SendKeys,
    account: &str,
    searches: &[Search<'_>],
) -> Result<Vec<Option<Reported>>> {
    let own = |search: &Search<'_>| {
        let (campaign, seq, _) = send_keys.read(search.traces.key?)?;
        Some((campaign, seq))
    };
    let numbers: HashSet<(CampaignId, i64)> = searches.iter().filter_map(own).collect();
    let requests: HashSet<SendKey> =
        searches.iter().filter(|search| own(search).is_none()).filter_map(|search| search.traces.request_key).collect();
    let by_number = match numbers.len() {
        0 => HashMap::new(),
        _ => ledger.reported(account, &numbers.into_iter().collect::<Vec<_>>()).await?,
    };
    let by_request = match requests.len() {
        0 => HashMap::new(),
        _ => ledger.members(account, &requests.into_iter().collect::<Vec<_>>()).await?,
    };
    let members = |search: &Search<'_>| by_request.get(&search.traces.request_key?);
    let mut found: Vec<Option<Reported>> = searches
        .iter()
        .map(|search| match own(search) {
            Some(number) => by_number.get(&number).copied(),
            None => by_id(members(search)?, search.traces.provider_id.as_deref()?),
        })
        .collect();
    // Where the answer was lost, nobody knows the provider's ids.
    let missed = |(search, found): &(&Search<'_>, &Option<Reported>)| found.is_none() && own(search).is_none();
    let lost: HashSet<(CampaignId, i64)> = searches
        .iter()
        .zip(&found)
        .filter(missed)
        .filter_map(|(search, _)| members(search))
        .flatten()
        .map(|member| (member.delivery.campaign, member.delivery.seq))
        .collect();
    if !lost.is_empty() {
        let addresses = ledger.addresses(&lost.into_iter().collect::<Vec<_>>()).await?;
        let mut keys: HashMap<TenantId, TenantKeys> = HashMap::new();
        for member in by_request.values().filter_map(|members| members.first()) {
            if let Entry::Vacant(place) = keys.entry(member.delivery.tenant) {
                place.insert(ledger.tenant_keys(member.delivery.tenant).await?);
            }
        }
        for (search, found) in searches.iter().zip(&mut found) {
            if found.is_none() && own(search).is_none() {
                *found = members(search).and_then(|members| by_address(members, search.address?, &keys, &addresses));
            }
        }
    }
    Ok(found)
}

fn by_id(members: &[Member], id: &str) -> Option<Reported> {
    members.iter().find(|member| member.provider_id.as_deref() == Some(id)).map(|member| member.delivery)
}

/// An address is in a request once, so with its key it names one delivery.
fn by_address(
    members: &[Member],
    address: &str,
    keys: &HashMap<TenantId, TenantKeys>,
    addresses: &HashMap<(CampaignId, i64), AddressHash>,
) -> Option<Reported> {
    let first = members.first()?.delivery;
    let hash = keys.get(&first.tenant)?.address_hash(first.channel, &normal(first.channel, address)?);
    let is_it = |delivery: &Reported| addresses.get(&(delivery.campaign, delivery.seq)) == Some(&hash);
    members.iter().map(|member| member.delivery).find(is_it)
}

/// An address as contacts have it; `None` when it cannot be one.
pub(super) fn normal(channel: Channel, address: &str) -> Option<String> {
    match channel {
        Channel::Email => EmailAddress::parse(address).ok().map(|address| address.as_str().to_owned()),
        Channel::Sms => {
            let digits = format!("+{}", address.trim_start_matches('+'));
            PhoneNumber::parse(&digits, None).ok().map(|number| number.as_str().to_owned())
        }
    }
}
