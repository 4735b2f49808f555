//! Addresses as people who look at a campaign see them: recognisable to who knows them, useless to who does not.

use dispatch_schemas::{ids::ContactId, states::Channel};
use dispatch_workers::sealing::{Column, TenantKeys};

/// A sealed address with its middle left out; `key` is its contact's, wrapped. Nothing for one that does not open.
pub(super) fn masked(
    keys: &TenantKeys,
    contact: ContactId,
    key: &[u8],
    address: &[u8],
    channel: Channel,
) -> Option<String> {
    let column = match channel {
        Channel::Email => Column::Email,
        Channel::Sms => Column::Phone,
    };
    let opened = keys.open_contact(contact, key).and_then(|key| key.open(column, address)).ok()?;
    Some(mask(channel, &String::from_utf8(opened).ok()?))
}

/// `anna@example.org` as `a***@e***.org`; `+33612345678` as `+336*****78`.
fn mask(channel: Channel, address: &str) -> String {
    match (channel, address.split_once('@')) {
        (Channel::Email, Some((local, domain))) => {
            let first = |text: &str| text.chars().next().map(String::from).unwrap_or_default();
            let ending = domain.rsplit_once('.').map_or("", |(_, ending)| ending);
            format!("{}***@{}***.{ending}", first(local), first(domain))
        }
        _ => {
            let digits = address.chars().count();
            address
                .chars()
                .enumerate()
                .map(|(at, digit)| if at < 4 || at + 2 >= digits { digit } else { '*' })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_shows_the_ends_only() {
        assert_eq!(mask(Channel::Email, "anna@example.org"), "a***@e***.org");
        assert_eq!(mask(Channel::Sms, "+33612345678"), "+336******78");
    }
}
