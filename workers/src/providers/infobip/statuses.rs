//! Infobip's statuses of a message, in the answer to a request and in the log.

use serde::Deserialize;

use crate::providers::{Code, Verdict};

/// What a status says about the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Accepted,
    Refused,
    Deferred,
    Account,
    Duplicate,
}

use Meaning::{Accepted, Account, Deferred, Duplicate, Refused};

/// Statuses by the vendor's table of general status codes.
const BY_ID: &[(u32, Meaning)] = &[
    (2, Accepted),   // DELIVERED_TO_OPERATOR
    (3, Accepted),   // PENDING_WAITING_DELIVERY
    (4, Refused),    // UNDELIVERABLE_REJECTED_OPERATOR
    (5, Accepted),   // DELIVERED_TO_HANDSET
    (6, Refused),    // REJECTED_NETWORK
    (7, Accepted),   // PENDING_ENROUTE
    (8, Refused),    // REJECTED_PREFIX_MISSING
    (9, Refused),    // UNDELIVERABLE_NOT_DELIVERED
    (10, Refused),   // REJECTED_DND
    (11, Account),   // REJECTED_SOURCE
    (12, Account),   // REJECTED_NOT_ENOUGH_CREDITS
    (13, Account),   // REJECTED_SENDER
    (14, Refused),   // REJECTED_DESTINATION_BLOCKLISTED
    (15, Refused),   // EXPIRED_EXPIRED
    (17, Account),   // REJECTED_PREPAID_PACKAGE_EXPIRED
    (18, Account),   // REJECTED_DESTINATION_NOT_REGISTERED, of a trial account
    (19, Account),   // REJECTED_ROUTE_NOT_AVAILABLE
    (20, Refused),   // REJECTED_FLOODING_FILTER
    (21, Deferred),  // REJECTED_SYSTEM_ERROR
    (23, Duplicate), // REJECTED_DUPLICATE_MESSAGE_ID
    (24, Refused),   // REJECTED_INVALID_UDH
    (25, Refused),   // REJECTED_MESSAGE_TOO_LONG
    (26, Accepted),  // PENDING_ACCEPTED
    (29, Accepted),  // EXPIRED_DLR_UNKNOWN: taken and passed on, without a word from the handset
    (31, Refused),   // UNDELIVERABLE_NOT_SENT
    (51, Refused),   // REJECTED_MISSING_TO
    (52, Refused),   // REJECTED_DESTINATION
    (87, Refused),   // SIGNALS_BLOCKED
    (100, Deferred), // UNDELIVERABLE_REJECTED_PLATFORM
];

/// The same by group, for a status that is not in the table.
const BY_GROUP: &[(u32, Meaning)] = &[
    (0, Accepted), // ACCEPTED
    (1, Accepted), // PENDING
    (2, Refused),  // UNDELIVERABLE
    (3, Accepted), // DELIVERED
    (4, Refused),  // EXPIRED
    (5, Refused),  // REJECTED
];

/// A message's status. Only its numbers count; its texts are for people.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    #[serde(default)]
    id: Option<u32>,
    #[serde(default)]
    group_id: Option<u32>,
}

impl Status {
    /// What it means for the recipient.
    pub(super) fn verdict(self) -> Verdict {
        let code = || Code::numbered("infobip", self.id.or(self.group_id).unwrap_or(0));
        match find(BY_ID, self.id).or_else(|| find(BY_GROUP, self.group_id)) {
            // The vendor's id of a message is the one we gave it.
            Some(Accepted) => Verdict::Accepted { provider_id: None },
            Some(Refused) => Verdict::Refused(code()),
            Some(Deferred) => Verdict::Deferred(code()),
            Some(Account) => Verdict::AccountRefused(code()),
            Some(Duplicate) => Verdict::Duplicate,
            None => Verdict::Unknown(Code::known("unreadable_answer")),
        }
    }
}

fn find(table: &[(u32, Meaning)], number: Option<u32>) -> Option<Meaning> {
    let number = number?;
    table.iter().find(|(known, _)| *known == number).map(|(_, meaning)| *meaning)
}
