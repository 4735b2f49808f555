//! Engines with one thing wrong each. The checker must find what that breaks.

use dispatch_schemas::states::DeliveryState;

use super::{
    checking::{must_break, must_get_stuck},
    properties::{BOOKS, NO_CLAIM_AFTER_CLOSING, NO_GUESS, NO_PHANTOM, NOTHING_LATE, ONCE, TRUTH},
    variants::Variant,
};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// M1: the reaper returns an expired claim to `ready`.
    ReapedIsReady,
    /// M2: a request without an answer counts as refused.
    TimeoutIsRefusal,
    /// M3: the claim looks at no closing.
    ClaimIgnoresClosings,
    /// M4: the outcome is recorded before the send.
    RecordedBeforeSent,
    /// M5: a key is used again after its provider may have forgotten it.
    KeyOutlivesItsTime,
    /// M6: the worker has no deadline to send.
    NoSendDeadline,
    /// M7: "it never had it" is believed before the attempt has settled.
    AbsentBelievedEarly,
    /// M8: callbacks are no evidence.
    CallbacksIgnored,
    /// M9: a restored ledger is used as it is.
    NoQuarantine,
    /// M10: the refusal of a repeat is taken for the refusal of all.
    RepeatRefusedIsRefused,
    /// M11: the reconciler looks at the age of a key, the claim does not.
    ClaimIgnoresKeyAge,
    /// M12: what may have been accepted is called stopped when its gate is found closed.
    DoubtfulIsStopped,
    /// M13: an outcome is recorded whoever holds the delivery.
    RecordWithoutCompare,
    /// M14: the books are moved for rows that the record did not find.
    BooksWithoutRows,
    /// M15: nobody ends an attempt whose worker is gone.
    NobodyReaps,
    /// M16: "I have had this key" is proof after a refused repeat too.
    DuplicateAlwaysProves,
}

#[test]
fn m1_an_expired_claim_that_is_ready_again_is_sent_twice() {
    must_break("M1", Variant::ECHO_AT_MOST_ONCE.with(Flaw::ReapedIsReady), ONCE);
}

#[test]
fn m2_a_timeout_that_counts_as_refusal_is_sent_twice() {
    must_break("M2", Variant::ECHO_AT_MOST_ONCE.with(Flaw::TimeoutIsRefusal), ONCE);
}

#[test]
fn m3_a_claim_that_does_not_look_goes_through_a_closed_gate() {
    must_break("M3", Variant::ECHO_AT_MOST_ONCE.with(Flaw::ClaimIgnoresClosings), NO_CLAIM_AFTER_CLOSING);
}

#[test]
fn m4_a_record_before_the_send_tells_of_a_message_nobody_has() {
    must_break("M4", Variant::ECHO_AT_MOST_ONCE.with(Flaw::RecordedBeforeSent), NO_PHANTOM);
}

#[test]
fn m5_a_key_that_is_used_after_its_time_is_sent_twice() {
    must_break("M5", Variant::KEY_FOR_A_WHILE.with(Flaw::KeyOutlivesItsTime), ONCE);
}

#[test]
fn m6_a_worker_without_a_deadline_sends_after_all_has_settled() {
    must_break("M6", Variant::ECHO_AND_LOG.with(Flaw::NoSendDeadline), NOTHING_LATE);
}

#[test]
fn m7_a_log_that_is_believed_too_early_is_sent_twice() {
    must_break("M7", Variant::ECHO_AND_LOG.with(Flaw::AbsentBelievedEarly), ONCE);
}

#[test]
fn m8_without_callbacks_a_delivered_message_stays_unknown() {
    must_break("M8", Variant::ECHO_AT_MOST_ONCE.with(Flaw::CallbacksIgnored), TRUTH);
}

#[test]
fn m9_a_restored_ledger_sends_twice_and_to_people_who_opted_out() {
    must_break("M9", Variant::RESTORED.with(Flaw::NoQuarantine), ONCE);
    must_break("M9", Variant::RESTORED.with(Flaw::NoQuarantine), NO_CLAIM_AFTER_CLOSING);
}

#[test]
fn m10_a_repeat_that_is_refused_says_nothing_about_the_first_request() {
    must_break("M10", Variant::KEY_FOR_A_WHILE.with(Flaw::RepeatRefusedIsRefused), NO_GUESS);
}

#[test]
fn m11_a_key_grows_old_in_the_queue_too() {
    must_break("M11", Variant::KEY_FOR_A_WHILE.with(Flaw::ClaimIgnoresKeyAge), ONCE);
}

#[test]
fn m12_what_may_have_been_accepted_is_not_stopped() {
    must_break("M12", Variant::KEY_FOR_A_WHILE.with(Flaw::DoubtfulIsStopped), NO_GUESS);
}

#[test]
fn m13_only_the_holder_of_an_attempt_may_record_it() {
    must_break("M13", Variant::ECHO_AT_MOST_ONCE.with(Flaw::RecordWithoutCompare), TRUTH);
}

#[test]
fn m14_the_books_follow_the_rows() {
    must_break("M14", Variant::ECHO_AT_MOST_ONCE.with(Flaw::BooksWithoutRows), BOOKS);
}

#[test]
fn m15_without_a_reaper_a_claim_can_stay_open_for_ever() {
    must_get_stuck("M15", Variant::NOTHING_AT_MOST_ONCE.with(Flaw::NobodyReaps), DeliveryState::Claimed);
}
