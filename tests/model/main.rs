//! The delivery protocol, explored in every order in which its steps can happen.
//!
//! Tests of the real parts try some orders of events; this model tries all of them, for one delivery. It has the steps
//! of ARCHITECTURE.md ("The delivery protocol") under their numbers, each as coarse as a transaction of the ledger, and
//! says of each what the code does: [`recording`] follows `ledger::sqlite::claims`, [`reconcile`] follows
//! `scheduler::reconcile` and `ledger::sqlite::schedule::unknown`, the steps of a worker follow `delivery`.
//!
//! # What is in it
//!
//! - **The queue** holds a job or none. It may lose it, and may hand it out more than once.
//! - **Two workers** claim with a token of their own, send before the deadline or give back, wait, record, and may die
//!   between any two of these steps. A request that has left goes on without its worker.
//! - **The network and the provider**: a request is lost, throttled, refused (for now or for good) or taken over; the
//!   answer arrives, or is lost, or never comes. A provider may remember keys for a while or for good, have a log that is asked,
//!   and call back; A, B, C and D are what it has of these ([`variants`]).
//! - **Time** is no number. For each claim it is only whether the deadline has passed (D) and whether all of it has
//!   settled (D + H + G + L); for a key, whether it may be forgotten. Deadlines pass in the order of the claims. That a
//!   key is remembered beyond its last use for longer than a claim takes to settle is taken for granted here: 15 minutes
//!   against 13 and 105 seconds.
//! - **The reaper** ends a claim when its time is over, or at once when its process is known to be dead; **the
//!   reconciler** settles unknown outcomes by class and policy.
//! - **Closings**: a person's gate, or the cancelling of the campaign. **A person** may have a failed delivery tried
//!   again.
//! - **The ledger** may be set back once to the time before the first claim, by a backup or a replica that lags.
//!   In quarantine all it cannot vouch for is unknown, and closings are applied again from a second place.
//! - **The books** of the campaign are moved by what each step says has left and entered a state, as the ledger's tally
//!   is, and not counted from the delivery.
//!
//! Three claims are made at most, and two tries count. Left out, because they change nothing that is asked here: pauses
//! (a claim that does not happen yet), limits, rendering. Left out although they could: several recipients in one
//! request. `tests/ledger` tries batches.
//!
//! Three things are in it that the engine does not have yet. Callbacks: until it takes them, the engine is M8, and a
//! message that a provider of class C took over may stay `unknown_final`. A log of class C: until it is asked, `verify`
//! is the same as `at_most_once`, state for state. Quarantine: until there is one, a ledger must not be restored under a
//! running campaign (M9).
//!
//! # What must hold
//!
//! In every state of every variant, see [`properties`]: nobody is sent to twice but for counted resends; `accepted` is
//! true; `stopped` and `failed` are no guess; what a provider took over ends as `accepted` once it has called back; no
//! claim is made after a committed closing; nothing is taken over after its claim has settled; the counts add up to the
//! audience. From every state the delivery can come to its end by the engine's own steps, with no help from a person.
//!
//! | variant | provider | policy |
//! |---|---|---|
//! | A | remembers a key for a while | `verify`, `at_least_once` once the key is old |
//! | A with a log | the same, and its log is asked for what it shows once the key is old or the campaign cancelled | `verify`, `at_least_once` |
//! | B | takes our id, has a log | `verify`, `at_least_once` once the log is too old |
//! | C | echoes our id in callbacks | `at_most_once` (the same as `verify`), `at_least_once` |
//! | C with a log | echoes, and its log is asked | `verify` |
//! | C with a log, restored | the same, over a ledger that forgets and is quarantined | `verify` |
//! | D | nothing | `at_most_once`, `at_least_once` |
//!
//! Each is explored to its last state, and the number of its states is part of its test: a change of the model that was
//! not meant shows there. The checker tells states apart by a hash; a second walk by equality must count the same.
//!
//! # What must be found
//!
//! A model that finds nothing proves nothing, so each rule of the protocol is broken once, and the checker must find the
//! shortest way to the harm ([`mutants`]):
//!
//! | | what is wrong | what it breaks |
//! |---|---|---|
//! | M1 | the reaper returns an expired claim to `ready` | sent twice |
//! | M2 | a timeout counts as a refusal | sent twice |
//! | M3 | the claim looks at no closing | a claim after a closing |
//! | M4 | the outcome is recorded before the send | `accepted`, and the provider has nothing |
//! | M5 | a key is used again after its time | sent twice |
//! | M6 | the worker has no deadline | taken over after all had settled |
//! | M7 | "it never had it" is believed too early | sent twice |
//! | M8 | callbacks are no evidence | taken over, and not `accepted` in the end |
//! | M9 | a restored ledger is used as it is | sent twice; a claim after a closing |
//! | M10 | the refusal of a repeat is taken for the refusal of all | `failed`, and the provider has it |
//! | M11 | the reconciler looks at the age of a key, the claim does not | sent twice |
//! | M12 | what may have been accepted is called stopped | `stopped`, and the provider has it |
//! | M13 | an outcome is recorded whoever holds the delivery | taken over, and not `accepted` in the end |
//! | M14 | the books are moved for rows that were not found | the counts do not add up |
//! | M15 | nobody ends an attempt whose worker is gone | a claim that stays open for ever |
//! | M16 | "I have had this key" is proof after a refused repeat too | `accepted`, and the provider has nothing |
//!
//! More runs start from a provider for which a refused request has used its key up ([`assumptions`]): a refusal that is
//! known, or that a log tells of, never makes "I have had this key" pass for an acceptance. One that nobody heard, where
//! no log can be asked, does; the shortest ways there are searched for too.
//!
//! `cargo test -p dispatch-tests --test model -- --nocapture` prints the states, and each counter-example.

#![expect(clippy::panic, reason = "a test that cannot go on says so by panicking")]

mod actions;
mod assumptions;
mod checking;
mod mutants;
mod properties;
mod reconcile;
mod recording;
mod state;
mod steps;
mod variants;
