//! The campaigns of a run and whom they are for.

use std::collections::HashSet;

use dispatch_schemas::states::{Channel, UnknownPolicy};
use dispatch_tests::support::{sandbox::name_of, stage::Account};

/// A campaign and its people: addresses nobody has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience {
    /// Tells it apart; letters only.
    pub(crate) word: &'static str,
    /// The account, named after its kind.
    pub(crate) account: &'static str,
    pub(crate) channel: Channel,
    pub(crate) policy: UnknownPolicy,
    /// The number of its first person; no two audiences share numbers.
    first: usize,
    pub(crate) people: usize,
    /// Whether it is cancelled in the middle of the run.
    pub(crate) cancelled: bool,
}

/// A campaign's share of all people, in hundredths.
const SHARES: [(&str, &str, UnknownPolicy, usize, bool); 7] = [
    ("brevo", "brevo", UnknownPolicy::Verify, 27, false),
    ("cautious", "sendgrid", UnknownPolicy::AtMostOnce, 17, false),
    ("insistent", "sendgrid", UnknownPolicy::AtLeastOnce, 11, false),
    ("infobip", "infobip", UnknownPolicy::Verify, 36, false),
    ("endedbrevo", "brevo", UnknownPolicy::Verify, 3, true),
    ("endedsendgrid", "sendgrid", UnknownPolicy::AtMostOnce, 3, true),
    ("endedinfobip", "infobip", UnknownPolicy::Verify, 3, true),
];

/// Recipients in a request, at most.
pub(crate) const BATCH_MAX: usize = 25;

/// Campaigns to about so many people, over e-mail and SMS.
pub(crate) fn audiences(people: usize) -> Vec<Audience> {
    let mut first = 0;
    SHARES
        .into_iter()
        .map(|(word, account, policy, share, cancelled)| {
            let people = (people * share / 100).max(1);
            let channel = if account == "infobip" { Channel::Sms } else { Channel::Email };
            let audience = Audience { word, account, channel, policy, first, people, cancelled };
            first += people;
            audience
        })
        .collect()
}

/// The accounts, each with the limit that makes its campaigns last for `seconds`.
pub(crate) fn accounts(audiences: &[Audience], seconds: u64) -> [Account; 3] {
    let rate = |kind: &str| {
        let people: usize = audiences.iter().filter(|each| each.account == kind).map(|each| each.people).sum();
        u32::try_from(people as u64 / seconds.max(1) + 1).unwrap_or(u32::MAX)
    };
    [
        Account { batch: BATCH_MAX, per_minute: Some(60 * rate("brevo")), ..Account::new("brevo") },
        Account { batch: 10, per_second: Some(rate("sendgrid")), ..Account::new("sendgrid") },
        Account { batch: 20, per_second: Some(rate("infobip")), ..Account::new("infobip") },
    ]
}

impl Audience {
    /// The address of one of them, normalised.
    pub(crate) fn address(&self, number: usize) -> String {
        let number = self.first + number;
        match self.channel {
            Channel::Email => format!("{}{number}@people.example", self.word),
            Channel::Sms => format!("+33612{number:06}"),
        }
    }

    /// All of them as a contact file.
    pub(crate) fn csv(&self) -> String {
        let column = match self.channel {
            Channel::Email => "email",
            Channel::Sms => "phone",
        };
        let lines = (0..self.people).map(|number| format!("{},Person {number}\n", self.address(number)));
        format!("{column},first_name\n{}", lines.collect::<String>())
    }

    /// What the witness calls them.
    pub(crate) fn names(&self) -> HashSet<String> {
        (0..self.people).map(|number| name_of(&self.address(number))).collect()
    }
}
