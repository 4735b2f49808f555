//! The states of deliveries and campaigns, and the small words that go with them.
//!
//! Each is stored, sent and shown by one name; [`DeliveryState::is_final`] is the only place that says which states
//! end a delivery.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A word that is not one of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a {kind}; it is one of: {known}")]
pub struct UnknownWord {
    /// What was given, cut to 40 characters.
    pub word: String,
    /// What it should have been.
    pub kind: &'static str,
    /// The words there are.
    pub known: &'static str,
}

// A word is taken as a token, because what describes the API does not see one that is taken as a literal.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident ($kind:literal) { $($(#[$vdoc:meta])* $variant:ident = $word:tt,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum $name {$(
            $(#[$vdoc])*
            #[serde(rename = $word)]
            $variant,
        )+}

        impl $name {
            /// Every value, in the order they are declared.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word it is stored and shown by.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {$(Self::$variant => $word,)+}
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord {
                        word: word.chars().take(40).collect(),
                        kind: $kind,
                        known: concat!($($word, " "),+).trim_ascii_end(),
                    }),
                }
            }
        }
    )+};
}

words! {
    /// How a message reaches a person.
    Channel ("channel") {
        /// E-mail.
        Email = "email",
        /// Text message.
        Sms = "sms",
    }

    /// Which of the two lanes of the queue a campaign's jobs take.
    Lane ("lane") {
        /// Shared fairly between tenants.
        Bulk = "bulk",
        /// For single messages a person waits for; served first.
        Transactional = "transactional",
    }

    /// What a campaign is for. Decides which closed gates stop it.
    Purpose ("purpose") {
        /// Advertising to people who agreed or are customers.
        Marketing = "marketing",
        /// B2B prospecting.
        Prospecting = "prospecting",
        /// A message about a service the person uses; an opt-out from marketing does not stop it.
        Service = "service",
    }

    /// What to do with a delivery whose outcome stays unknown.
    UnknownPolicy ("policy for unknown outcomes") {
        /// Look it up where the provider can tell; send again only when the provider says it never had it.
        Verify = "verify",
        /// Never send again.
        AtMostOnce = "at_most_once",
        /// Send again once the outcome can no longer arrive; each such resend is counted.
        AtLeastOnce = "at_least_once",
    }

    /// Why a running campaign does not move.
    StallReason ("reason for a stall") {
        /// Its tenant is closed by the operator.
        Gate = "gate",
        /// Its sending window is not open; `opens_at` says when it is.
        OutsideWindow = "outside_window",
        /// Its limits, its tenant's, its account's or those of its recipients' domains or countries are used up for now.
        Limit = "limit",
        /// Its provider asked us to wait.
        ProviderPaused = "provider_paused",
        /// Its provider refuses the account.
        ProviderRefused = "provider_refused",
        /// Recipients wait for their next try.
        WaitingForRetry = "waiting_for_retry",
        /// Recipients wait for the outcome of a request that was not answered.
        OutcomeUnknown = "outcome_unknown",
        /// No worker takes its jobs.
        NoWorker = "no_worker",
    }

    /// Where one delivery stands.
    DeliveryState ("delivery state") {
        /// May be claimed now.
        Ready = "ready",
        /// An attempt is open; nothing is known of it yet.
        Claimed = "claimed",
        /// An attempt ended without an answer: the provider may or may not have accepted.
        Unknown = "unknown",
        /// The last attempt was definitely not accepted; waits for its next time.
        RetryWait = "retry_wait",
        /// The provider took responsibility.
        Accepted = "accepted",
        /// Definitely not accepted, for good.
        Failed = "failed",
        /// Its validity ended before it could be sent.
        Expired = "expired",
        /// Its gate closed before a claim; [`StopReason`] says which.
        Stopped = "stopped",
        /// Could not be decided and may not be sent again; evidence may still lift it to `accepted`.
        UnknownFinal = "unknown_final",
    }

    /// What providers report of a message after they took it. Each is kept with when it was first and last reported.
    FactKind ("kind of report") {
        /// The provider has it in work.
        Accepted = "accepted",
        /// The other side did not take it yet; the provider goes on trying.
        Deferred = "deferred",
        /// The other side took it.
        Delivered = "delivered",
        /// The other side refused it, not for good.
        BouncedSoft = "bounced_soft",
        /// The address is dead.
        BouncedHard = "bounced_hard",
        /// The provider did not pass it on: its own list of dead addresses and opt-outs, or its rules.
        RejectedByProvider = "rejected_by_provider",
        /// The provider tried until its time was over.
        ExpiredAtProvider = "expired_at_provider",
        /// The person complained about it.
        Complained = "complained",
        /// The person opted out by it.
        Unsubscribed = "unsubscribed",
        /// A report of a kind this version does not know.
        Other = "other",
    }

    /// What became of a message, in one word: of its state and of what its provider reported, what says most.
    DeliveryStatus ("delivery status") {
        /// As the state.
        Ready = "ready",
        /// As the state.
        Claimed = "claimed",
        /// As the state.
        Unknown = "unknown",
        /// As the state.
        RetryWait = "retry_wait",
        /// As the state.
        Failed = "failed",
        /// As the state.
        Expired = "expired",
        /// As the state.
        Stopped = "stopped",
        /// As the state.
        UnknownFinal = "unknown_final",
        /// The provider took responsibility; nothing more is known.
        Accepted = "accepted",
        /// The other side did not take it yet.
        Deferred = "deferred",
        /// The other side refused it, not for good.
        BouncedSoft = "bounced_soft",
        /// The provider tried until its time was over.
        ExpiredAtProvider = "expired_at_provider",
        /// The provider did not pass it on.
        RejectedByProvider = "rejected_by_provider",
        /// The other side took it.
        Delivered = "delivered",
        /// The address is dead, even where the message seemed delivered before.
        BouncedHard = "bounced_hard",
    }

    /// Why a delivery was stopped before it was sent.
    StopReason ("stop reason") {
        /// On the tenant's suppression list.
        Suppressed = "suppressed",
        /// The person opted out.
        Unsubscribed = "unsubscribed",
        /// The person complained.
        Complained = "complained",
        /// The address is known to be dead.
        HardBounced = "hard_bounced",
        /// The person's data was erased.
        Erased = "erased",
        /// The person restricted the use of their data.
        Restricted = "restricted",
        /// No consent for this purpose and channel.
        NoConsent = "no_consent",
        /// The campaign was cancelled.
        Cancelled = "cancelled",
    }

    /// Where a campaign stands.
    CampaignState ("campaign state") {
        /// Created, not launched.
        Draft = "draft",
        /// Launched, waits for its `send_at`.
        Scheduled = "scheduled",
        /// Sending.
        Running = "running",
        /// Stopped for now, by a person or by a refused provider key; nothing is lost.
        Paused = "paused",
        /// Stopped for good by a person.
        Cancelled = "cancelled",
        /// Every recipient is final.
        Completed = "completed",
    }

    /// A day of the week.
    Weekday ("day of the week") {
        /// Monday.
        Monday = "mon",
        /// Tuesday.
        Tuesday = "tue",
        /// Wednesday.
        Wednesday = "wed",
        /// Thursday.
        Thursday = "thu",
        /// Friday.
        Friday = "fri",
        /// Saturday.
        Saturday = "sat",
        /// Sunday.
        Sunday = "sun",
    }

    /// Where an import stands.
    ImportState ("import state") {
        /// Rows are being read; none can be mailed yet.
        Running = "running",
        /// All rows are read; changes to contacts that were there before are being applied.
        Applying = "applying",
        /// Done; its contacts can be mailed.
        Completed = "completed",
        /// Interrupted; what it stored is being removed.
        RollingBack = "rolling_back",
        /// Interrupted and removed whole.
        Failed = "failed",
    }

    /// On what kind of ground a source's contacts may be used (who collected them, for whom).
    SourceKind ("source kind") {
        /// The tenant's own customers, prospects or members.
        CustomerList = "customer_list",
        /// Rented for a single campaign.
        Marketplace = "marketplace",
        /// The platform's own prospects.
        OwnProspect = "own_prospect",
        /// Users of the platform.
        Account = "account",
    }

    /// The legal basis of GDPR Art. 6 a source claims for its contacts.
    LegalBasis ("legal basis") {
        /// Art. 6(1)(a).
        Consent = "consent",
        /// Art. 6(1)(b).
        Contract = "contract",
        /// Art. 6(1)(f).
        LegitimateInterest = "legitimate_interest",
        /// Art. 6(1)(c).
        LegalObligation = "legal_obligation",
    }
}

impl DeliveryState {
    /// Whether a delivery in this state is done: nothing will be sent for it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Ready | Self::Claimed | Self::Unknown | Self::RetryWait => false,
            Self::Accepted | Self::Failed | Self::Expired | Self::Stopped | Self::UnknownFinal => true,
        }
    }
}

impl StopReason {
    /// Whether a closed gate with this reason stops a campaign of this purpose.
    #[must_use]
    pub const fn stops(self, purpose: Purpose) -> bool {
        !matches!((self, purpose), (Self::Unsubscribed | Self::NoConsent, Purpose::Service))
    }
}
