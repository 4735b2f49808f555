//! What the model knows at one moment: the ledger's row, the queue's job, and for each claim its worker, its request and
//! what the provider did with it.

use dispatch_schemas::states::DeliveryState;

/// Claims in one run of the model. The third is the one that meets everything the first two left behind.
pub(crate) const CLAIMS_MAX: usize = 3;

/// Workers that hold a claim at the same time.
pub(crate) const WORKERS: usize = 2;

/// Tries that count before a delivery is given up; below [`CLAIMS_MAX`], so that both ends are met.
pub(crate) const TRIES_MAX: u8 = 2;

/// A claim's token: the number of the claim. The engine draws 128 random bits; what matters is that no two are equal.
pub(crate) type Token = u8;

/// One moment of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    /// Whether the queue holds a job for the delivery.
    pub(crate) queued: bool,
    /// The claims made so far, in their order; the rest is as new.
    pub(crate) attempts: [Attempt; CLAIMS_MAX],
    /// How many claims were made.
    pub(crate) claims: u8,
    /// For the claims below this number the time to send is over (D).
    pub(crate) late: u8,
    /// Claims below this number have settled (D + H + G + L): nothing of them is on the wire any more, and the
    /// provider's log shows all it took of them.
    pub(crate) settled: u8,
    /// Whether a closing was ever committed, whatever the ledger remembers of it.
    pub(crate) closed: bool,
    /// Whether the ledger was restored.
    pub(crate) restored: bool,
}

/// The delivery's row, what the claim asks of its person and campaign, and the campaign's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ledger {
    pub(crate) delivery: DeliveryState,
    /// The attempt that holds it, or held it last.
    pub(crate) attempt: Option<Token>,
    /// Tries that count, at most [`TRIES_MAX`].
    pub(crate) tries: u8,
    /// Whether an earlier attempt may have been accepted.
    pub(crate) doubted: bool,
    /// Whether the answer "I have had this key" would prove that one was: none is known to have been refused.
    pub(crate) duplicate_proves: bool,
    /// The key under which the provider may know it. None when the next claim has a new one.
    pub(crate) key: Option<Key>,
    /// Times it was sent again without knowing.
    pub(crate) resends: u8,
    pub(crate) closing: Closing,
    pub(crate) books: Books,
}

/// A key in use: the claim that first used it, and what time has done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) first: Token,
    pub(crate) age: Age,
}

/// How old a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Age {
    /// Its provider knows it.
    Young,
    /// Its provider may forget it from now on; the ledger sees that by the time of its first use.
    Old,
    /// Its provider has forgotten it, which the ledger cannot see.
    Forgotten,
}

/// What was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Closing {
    /// Nothing: it may be sent.
    Open,
    /// The person's gate: suppressed, unsubscribed, erased.
    Gate,
    /// The campaign, for good. One that expires ends what waits in the same way.
    Campaign,
}

/// One claim and all that came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    pub(crate) worker: Worker,
    /// Whether its request is on the wire.
    pub(crate) on_wire: bool,
    pub(crate) taken: Taken,
    /// Whether the provider is yet to call back about it.
    pub(crate) callback: bool,
    /// The key its request carries, where the provider looks at one.
    pub(crate) key: Option<Token>,
    /// Whether it was claimed after a closing had been committed.
    pub(crate) after_closing: bool,
}

/// The worker that made a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Worker {
    /// None, or dead, or done with it.
    Gone,
    /// Has claimed, has not sent.
    Holding,
    /// Waits for the answer.
    Waiting,
    /// Knows what came of it and has not recorded it.
    Heard(Answer),
}

/// What a worker makes of its request's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Accepted,
    /// The provider has had this key.
    Duplicate,
    /// Refused for our speed or our account: costs no try.
    Throttled,
    RefusedForNow,
    RefusedForGood,
    /// No byte left.
    NotSent,
    /// Nothing was heard in time, or nothing that tells.
    Nothing,
}

/// Whether the provider took a request's message over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Taken {
    No,
    /// It refused it, and the key is used up all the same.
    Refused,
    InTime,
    /// After its attempt had settled.
    TooLate,
}

/// How many deliveries the campaign's books say are in each state, in the order of [`DeliveryState::ALL`]. Written as
/// the ledger writes its tally: what left and what entered, by the step that moves a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Books([i8; DeliveryState::ALL.len()]);

impl State {
    /// A delivery that was just expanded, of a running campaign.
    pub(crate) const fn new() -> Self {
        Self {
            ledger: Ledger::new(),
            queued: false,
            attempts: [Attempt::new(); CLAIMS_MAX],
            claims: 0,
            late: 0,
            settled: 0,
            closed: false,
            restored: false,
        }
    }

    pub(crate) fn attempt(&self, token: Token) -> &Attempt {
        &self.attempts[usize::from(token)]
    }

    pub(crate) fn attempt_mut(&mut self, token: Token) -> &mut Attempt {
        &mut self.attempts[usize::from(token)]
    }

    /// The claims made so far.
    pub(crate) fn made(&self) -> &[Attempt] {
        &self.attempts[..usize::from(self.claims)]
    }

    /// Whether there is a worker for another claim, and the run of the model has one left.
    pub(crate) fn has_room(&self) -> bool {
        let busy = self.made().iter().filter(|attempt| attempt.worker != Worker::Gone).count();
        busy < WORKERS && usize::from(self.claims) < CLAIMS_MAX
    }

    /// Messages the provider took over.
    pub(crate) fn copies(&self) -> usize {
        self.made().iter().filter(|attempt| attempt.is_taken()).count()
    }

    /// Whether the attempt that is unknown, and all before it, have settled.
    pub(crate) fn has_settled(&self) -> bool {
        match self.ledger.attempt {
            Some(token) => token < self.settled,
            // The ledger has forgotten which claims there were: all of them.
            None => self.settled == self.claims,
        }
    }
}

impl Ledger {
    const fn new() -> Self {
        Self {
            delivery: DeliveryState::Ready,
            attempt: None,
            tries: 0,
            doubted: false,
            duplicate_proves: false,
            key: None,
            resends: 0,
            closing: Closing::Open,
            books: Books::with_one(DeliveryState::Ready),
        }
    }

    /// A ledger that was restored to the time before the first claim.
    pub(crate) const fn restored() -> Self {
        Self::new()
    }

    /// Moves the delivery and says so in the books.
    pub(crate) fn enter(&mut self, state: DeliveryState) {
        self.books.moved(self.delivery, state);
        self.delivery = state;
    }

    /// Whether the provider may have forgotten the key.
    pub(crate) fn has_old_key(&self) -> bool {
        self.key.is_some_and(|key| key.age != Age::Young)
    }

    pub(crate) fn holds(&self, token: Token) -> bool {
        self.delivery == DeliveryState::Claimed && self.attempt == Some(token)
    }

    /// An attempt with the key ended without an answer.
    pub(crate) fn doubt(&mut self) {
        self.duplicate_proves |= !self.doubted;
        self.doubted = true;
    }

    /// The next claim has a new key, of which nothing is in doubt.
    pub(crate) fn drop_key(&mut self) {
        (self.doubted, self.duplicate_proves, self.key) = (false, false, None);
    }

    pub(crate) fn count_try(&mut self) {
        self.tries = (self.tries + 1).min(TRIES_MAX);
    }
}

impl Attempt {
    const fn new() -> Self {
        Self {
            worker: Worker::Gone,
            on_wire: false,
            taken: Taken::No,
            callback: false,
            key: None,
            after_closing: false,
        }
    }

    pub(crate) const fn is_taken(&self) -> bool {
        matches!(self.taken, Taken::InTime | Taken::TooLate)
    }

    pub(crate) fn has_used_key(&self, key: Option<Token>) -> bool {
        self.taken != Taken::No && self.key == key
    }
}

impl Books {
    const fn with_one(state: DeliveryState) -> Self {
        let mut counts = [0; DeliveryState::ALL.len()];
        counts[state as usize] = 1;
        Self(counts)
    }

    pub(crate) const fn moved(&mut self, from: DeliveryState, to: DeliveryState) {
        self.0[from as usize] -= 1;
        self.0[to as usize] += 1;
    }

    /// Whether they count one delivery, and in this state.
    pub(crate) fn say(&self, state: DeliveryState) -> bool {
        *self == Self::with_one(state)
    }
}
