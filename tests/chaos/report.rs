//! What a run came to: a page of figures, and what must hold.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    time::Duration,
};

use dispatch_schemas::states::DeliveryState;
use dispatch_tests::support::{
    checker::{self, BehindGates, Books, Closing, Faults},
    stage::RUNS,
};
use dispatch_workers::sandbox::{
    CallbackCounts,
    witness::{WitnessLine, WitnessVerdict},
};

use crate::{audience::BATCH_MAX, fleet::Blows};

/// Deliveries that one process can hold when it is killed or frozen: the runs of a channel, a full request each.
const SLOTS: usize = RUNS * BATCH_MAX;

/// The looks at the ledger while the run lasted.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) looks: u64,
    /// Campaigns whose recipients did not add up.
    pub(crate) wrong: Vec<String>,
}

/// People whom the ledger has forgotten: it knows their states, the witness their names, and nobody who is who.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Erased {
    /// Names of those who were accepted.
    pub(crate) accepted: HashSet<String>,
    /// Names of those who were accepted more than once.
    pub(crate) twice: Vec<String>,
    /// Deliveries without a person: accepted, and not known to be or not.
    pub(crate) states: BTreeMap<String, usize>,
}

impl Erased {
    pub(crate) fn of(books: &Books, witness: &[WitnessLine], erased: &HashSet<String>) -> Self {
        let mut times: HashMap<&str, usize> = HashMap::new();
        for recipient in witness.iter().flat_map(|line| &line.recipients) {
            if recipient.verdict == WitnessVerdict::Accepted && erased.contains(&recipient.to) {
                *times.entry(&recipient.to).or_default() += 1;
            }
        }
        let mut states = BTreeMap::new();
        for entry in books.entries.iter().filter(|entry| entry.to.is_none()) {
            *states.entry(entry.state.to_string()).or_default() += 1;
        }
        let twice = times.iter().filter(|(_, times)| **times > 1).map(|(name, _)| (*name).to_owned()).collect();
        Self { accepted: times.keys().map(|name| (*name).to_owned()).collect(), twice, states }
    }

    fn count(&self, state: DeliveryState) -> usize {
        self.states.get(state.as_str()).copied().unwrap_or(0)
    }
}

/// What providers told, and what of it the ledger has: messages by kind.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) told: CallbackCounts,
    pub(crate) applied: BTreeMap<String, u64>,
}

impl Heard {
    /// Kinds that the ledger has more of than were told, or fewer by more than `fewer_max`.
    fn wrong(&self, fewer_max: u64) -> Vec<String> {
        let applied = |kind: &String| self.applied.get(kind).copied().unwrap_or(0);
        let kinds = self.told.told.keys().chain(self.applied.keys()).collect::<BTreeSet<_>>();
        let told = |kind: &String| self.told.told.get(kind).copied().unwrap_or(0);
        let is_wrong = |kind: &&String| !(told(kind).saturating_sub(fewer_max)..=told(kind)).contains(&applied(kind));
        let wrong = kinds.into_iter().filter(is_wrong);
        wrong.map(|kind| format!("{kind}: told of {}, applied to {}", told(kind), applied(kind))).collect()
    }
}

/// How fast an account was at its fastest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) account: &'static str,
    /// Its limit by the second.
    pub(crate) limit: usize,
    /// Most messages that arrived within a second.
    pub(crate) in_a_second: usize,
    /// Most messages that arrived within the time that a second's may be pressed into on their way.
    pub(crate) in_less: usize,
}

/// The page.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    pub(crate) drained_in: Duration,
    pub(crate) people: usize,
    pub(crate) requests: usize,
    /// Requests the provider answered wrongly or not at all.
    pub(crate) faulty: usize,
    pub(crate) compared: checker::Report,
    /// Recipients without an outcome whose provider could have been asked.
    pub(crate) undecided: Vec<String>,
    pub(crate) closings: Vec<Closing>,
    pub(crate) behind: BehindGates,
    /// Requests that came before their attempt was claimed.
    pub(crate) early: Vec<String>,
    pub(crate) erased: Erased,
    /// Accounts with a limit by the second.
    pub(crate) paces: Vec<Pace>,
    pub(crate) recovered: BTreeMap<String, i64>,
    pub(crate) blows: Blows,
    pub(crate) watched: Watched,
    pub(crate) heard: Heard,
    /// Processes that did not end well when they were told to in the end.
    pub(crate) badly: u64,
}

impl Report {
    /// Recipients that are in the ledger under no name and that the witness saw are the erased.
    fn faults(&self) -> Faults {
        let faults = &self.compared.faults;
        let is_erased =
            |found: &&String| found.split(' ').nth(1).is_some_and(|name| self.erased.accepted.contains(name));
        let unexpected = faults.unexpected.iter().filter(|found| !is_erased(found)).cloned().collect();
        Faults { unexpected, ..faults.clone() }
    }

    /// Panics unless everything holds that must.
    pub(crate) fn judge(&self) {
        assert_eq!(self.faults(), Faults::default());
        assert!(self.watched.looks > 0 && self.watched.wrong.is_empty(), "{:#?}", self.watched);
        assert!(self.behind.begun_after.is_empty(), "{:#?}", self.behind);
        assert!(self.early.is_empty(), "{:?}", self.early);
        let late_max = usize::try_from(self.blows.freezes).unwrap_or(0) * SLOTS;
        assert!(self.behind.late.len() <= late_max, "{:#?}", self.behind);
        for pace in &self.paces {
            assert!(pace.in_less <= pace.limit, "{pace:?}");
        }
        assert!(self.undecided.is_empty(), "these could be asked: {:?}", self.undecided);
        let undecided_max = (self.blows.kills + self.blows.freezes + self.blows.impatient) * SLOTS as u64;
        assert!(self.compared.of("sendgrid").undecided_by_kill <= undecided_max);
        let (known, open) =
            (self.erased.count(DeliveryState::Accepted), self.erased.count(DeliveryState::UnknownFinal));
        let seen = self.erased.accepted.len();
        assert!(known <= seen && seen <= known + open, "{:?}", self.erased);
        let taken_and_undecided: u64 = self.compared.figures.values().map(|figures| figures.undecided_accepted).sum();
        assert_eq!(taken_and_undecided, 0, "callbacks told that these were accepted");
        assert_eq!(self.heard.told.pending, 0, "a callback that nobody took");
        assert!(self.heard.told.refused > 0, "forged callbacks are refused");
        // What is told of a copy adds nothing, and where only an address tells who it is, nothing is known of the erased.
        let fewer_max = self.compared.figures.values().map(|figures| figures.extra).sum::<u64>() + seen as u64;
        assert_eq!(self.heard.wrong(fewer_max), Vec::<String>::new());
        assert_eq!(self.badly + self.blows.ended_badly, 0, "a process that is told to end does so in good order");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (faults, blows) = (self.faults(), &self.blows);
        writeln!(
            f,
            "seed {}, {} s of chaos, drained in {} s",
            self.seed,
            self.length.as_secs(),
            self.drained_in.as_secs()
        )?;
        writeln!(
            f,
            "SIGKILL {}, SIGSTOP {}, SIGTERM {} ({} killed after their grace, {} ended badly); {} gave up by themselves",
            blows.kills, blows.freezes, blows.terminations, blows.impatient, blows.ended_badly, blows.gave_up
        )?;
        let sum = |of: fn(&checker::Figures) -> u64| self.compared.figures.values().map(of).sum::<u64>();
        writeln!(
            f,
            "recipients {}, requests {} ({} of them faulty), messages accepted {}, known as accepted {}",
            self.people,
            self.requests,
            self.faulty,
            sum(|figures| figures.acceptances),
            sum(|figures| figures.accepted)
        )?;
        writeln!(
            f,
            "recovered {} {:?}, resends {}, extra copies {}",
            self.recovered.values().sum::<i64>(),
            self.recovered,
            sum(|figures| figures.resends),
            sum(|figures| figures.extra)
        )?;
        writeln!(
            f,
            "lost {}, phantom {}, untrue {}, duplicated {}, unexpected {}, untracked {}, early {}, tokens reused {}",
            faults.lost.len(),
            faults.phantom.len(),
            faults.untrue.len(),
            faults.duplicated.len(),
            faults.unexpected.len(),
            faults.untracked.len(),
            self.early.len(),
            faults.reused.len()
        )?;
        for (account, figures) in &self.compared.figures {
            writeln!(
                f,
                "{account}: accepted {} of {}, unknown_final {} ({} without a fault of the provider)",
                figures.accepted, figures.recipients, figures.undecided, figures.undecided_by_kill
            )?;
        }
        let closed = |what: &str| self.closings.iter().filter(|closing| closing.what == what).count();
        writeln!(
            f,
            "suppressed {}, erased {} {:?}, cancelled {}, paused {}: begun after the answer {}, announced {}, late {}",
            closed("suppressed"),
            closed("erased"),
            self.erased.states,
            closed("cancelled"),
            closed("paused"),
            self.behind.begun_after.len(),
            self.behind.announced,
            self.behind.late.len()
        )?;
        writeln!(
            f,
            "callbacks taken {}, forged and refused {}, told {:?}, applied {:?}",
            self.heard.told.taken, self.heard.told.refused, self.heard.told.told, self.heard.applied
        )?;
        for Pace { account, limit, in_a_second, .. } in &self.paces {
            writeln!(f, "{account}: {in_a_second} in its busiest second, limit {limit}")?;
        }
        write!(f, "{} looks, {} did not add up", self.watched.looks, self.watched.wrong.len())
    }
}
