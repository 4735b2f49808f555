//! Which delivery a report is about.
//!
//! By the delivery's own key first, then by the key of its request and, within that, by the provider's id or the address.
//! An address alone never leads to a delivery. And only deliveries of campaigns that the account itself sends are found:
//! who can call in the name of one account changes nothing that another has sent.

use std::collections::{HashMap, HashSet};

use dispatch_schemas::{
    address::{EmailAddress, PhoneNumber},
    ids::{CampaignId, TenantId},
    states::Channel,
};
use dispatch_workers::{
    message::SendKey,
    providers::callbacks::Traces,
    sealing::{SendKeys, TenantKeys},
};

use crate::ledger::{Ledger, Reported, Result};

/// A report that looks for its delivery.
pub(super) struct Search<'a> {
    /// What it says about it.
    pub(super) traces: &'a Traces,
    /// Its address in the form contacts have, where it is one.
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
        _ => ledger.reported_in(account, &requests.into_iter().collect::<Vec<_>>()).await?,
    };
    let mut keys: HashMap<TenantId, TenantKeys> = HashMap::new();
    for member in by_request.values().filter_map(|members| members.first()) {
        if let std::collections::hash_map::Entry::Vacant(place) = keys.entry(member.tenant) {
            place.insert(ledger.tenant_keys(member.tenant).await?);
        }
    }
    Ok(searches
        .iter()
        .map(|search| match own(search) {
            Some(number) => by_number.get(&number).cloned(),
            None => member(by_request.get(&search.traces.request_key?)?, search, &keys),
        })
        .collect())
}

/// The member of a request that a report is about.
fn member(members: &[Reported], search: &Search<'_>, keys: &HashMap<TenantId, TenantKeys>) -> Option<Reported> {
    if let Some(id) = &search.traces.provider_id
        && let Some(member) = members.iter().find(|member| member.provider_id.as_ref() == Some(id))
    {
        return Some(member.clone());
    }
    let first = members.first()?;
    let hash = keys.get(&first.tenant)?.address_hash(first.channel, search.address?);
    // An address is in a request once, so with its key it names one delivery.
    members.iter().find(|member| member.address == Some(hash)).cloned()
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
