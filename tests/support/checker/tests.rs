//! The checker must find what is wrong with a pair of logs that was right before it was tampered with.

use std::collections::HashSet;

use dispatch_workers::sandbox::witness::WitnessRecipient;

use super::{closings::CLOCKS_APART_MS, *};

const TOKEN: [u8; 16] = [0xab; 16];
const ATTEMPT: &str = "abababababababababababab";

fn entry(seq: i64, state: DeliveryState) -> Entry {
    Entry { provider: "sendgrid".into(), seq, to: Some(format!("person-{seq}")), state, resends: 0 }
}

fn line(seq: u64, mode: &str, recipients: &[(i64, WitnessVerdict)]) -> WitnessLine {
    let of_one = |(number, verdict): &(i64, WitnessVerdict)| WitnessRecipient {
        key: None,
        to: format!("person-{number}"),
        verdict: *verdict,
    };
    WitnessLine {
        seq,
        t_ms: 0,
        provider: "sendgrid".into(),
        token: Some(format!("{ATTEMPT}{seq:08x}")),
        batch_key: None,
        mode: mode.into(),
        status: 202,
        recipients: recipients.iter().map(of_one).collect(),
    }
}

/// Four recipients, each with an end of its own, and what the provider saw.
fn right() -> (Books, Vec<WitnessLine>) {
    use DeliveryState::{Accepted, Failed, Stopped, UnknownFinal};
    use WitnessVerdict::{Accepted as Took, Refused};
    let entries = vec![entry(0, Accepted), entry(1, Failed), entry(2, Stopped), entry(3, UnknownFinal)];
    let witness = vec![
        line(0, "throttle", &[(0, Refused)]),
        line(1, "ok", &[(0, Took)]),
        line(2, "refuse", &[(1, Refused)]),
        line(3, "accept_then_drop", &[(3, Took)]),
    ];
    (Books::new(entries, &[TOKEN]), witness)
}

/// What the checker says after something was changed.
fn after(change: impl FnOnce(&mut Books, &mut Vec<WitnessLine>)) -> Faults {
    let (mut books, mut witness) = right();
    change(&mut books, &mut witness);
    check(&books, &witness).faults
}

/// The witness without a line, its numbers mended so that only the comparison can tell.
fn without(witness: &mut Vec<WitnessLine>, at: usize) {
    witness.remove(at);
    for (line, seq) in witness.iter_mut().zip(0..) {
        line.seq = seq;
    }
}

#[test]
fn logs_that_agree_have_no_faults() {
    let (books, witness) = right();
    let report = check(&books, &witness);
    assert_eq!(report.faults, Faults::default());
    let figures = Figures {
        recipients: 4,
        accepted: 1,
        acceptances: 2,
        undecided: 1,
        undecided_accepted: 1,
        ..Figures::default()
    };
    assert_eq!(report.of("sendgrid"), figures);
}

#[test]
fn a_removed_acceptance_is_a_phantom() {
    assert_eq!(after(|_, witness| without(witness, 1)).phantom.len(), 1);
}

#[test]
fn a_removed_refusal_is_a_loss() {
    assert_eq!(after(|_, witness| without(witness, 2)).lost.len(), 1);
}

#[test]
fn a_line_that_is_missing_is_told() {
    assert_eq!(after(|_, witness| drop(witness.remove(0))).missing_lines.len(), 1);
}

#[test]
fn a_doubled_acceptance_is_a_duplicate_unless_a_resend_was_counted() {
    let double = |witness: &mut Vec<WitnessLine>| witness.push(WitnessLine { seq: 4, ..witness[1].clone() });
    let faults = after(|_, witness| double(witness));
    assert_eq!((faults.duplicated.len(), faults.reused.len()), (1, 1));
    let faults = after(|books, witness| {
        double(witness);
        books.entries[0].resends = 1;
    });
    assert_eq!((faults.duplicated.len(), faults.reused.len()), (0, 1));
}

#[test]
fn a_verdict_turned_to_accepted_is_untrue() {
    let faults = after(|_, witness| witness[2].recipients[0].verdict = WitnessVerdict::Accepted);
    assert_eq!(faults.untrue.len(), 1);
    assert_eq!(faults.lost.len(), 1, "and nobody refused the failed one any more");
}

#[test]
fn a_verdict_turned_to_refused_is_a_phantom() {
    let faults = after(|_, witness| witness[1].recipients[0].verdict = WitnessVerdict::Refused);
    assert_eq!(faults.phantom.len(), 1);
}

#[test]
fn a_recipient_that_is_not_final_is_lost() {
    assert_eq!(after(|books, _| books.entries[3].state = DeliveryState::Unknown).lost.len(), 1);
}

#[test]
fn an_acceptance_for_a_stranger_is_unexpected() {
    let faults = after(|_, witness| witness[1].recipients[0].to = "stranger".into());
    assert_eq!((faults.unexpected.len(), faults.phantom.len()), (1, 1));
}

#[test]
fn a_request_of_no_attempt_is_untracked() {
    let faults = after(|_, witness| witness[0].token = Some("cd".repeat(16)));
    assert_eq!(faults.untracked.len(), 1);
}

#[test]
fn an_undecided_recipient_without_a_fault_is_put_down_to_a_kill() {
    let (books, mut witness) = right();
    witness[3].mode = "ok".into();
    assert_eq!(check(&books, &witness).of("sendgrid").undecided_by_kill, 1);
}

/// A line with this token and time.
fn at(seq: u64, t_ms: i64, token: &[u8; 16]) -> WitnessLine {
    let token = token.iter().map(|byte| format!("{byte:02x}")).collect();
    WitnessLine { t_ms, token: Some(token), ..line(seq, "ok", &[(0, WitnessVerdict::Accepted)]) }
}

/// Somebody whose gate was closed at 1,000, with one message on its way, and two attempts: of before and of after.
fn closed() -> (Closing, Claims, [u8; 16], [u8; 16]) {
    let (before, after) = ([1; 16], [2; 16]);
    let people = HashSet::from(["person-0".to_owned()]);
    let closing = Closing { what: "suppressed", people, from_ms: 1_000, until_ms: None, in_flight: 1 };
    (closing, Claims::new([(before, 990), (after, 1_200)]), before, after)
}

#[test]
fn what_came_before_a_gate_closed_or_was_announced_is_no_fault() {
    let (closing, claims, before, _) = closed();
    let lines = [at(0, 995, &before), at(1, 1_005, &before)];
    let found = behind(&[closing], &lines, &claims);
    assert_eq!(found, BehindGates { announced: 1, ..BehindGates::default() });
}

#[test]
fn a_line_moved_behind_a_gate_is_late() {
    let (closing, claims, before, _) = closed();
    let mut lines = [at(0, 995, &before), at(1, 1_005, &before)];
    lines[0].t_ms = 2_000;
    assert_eq!(behind(&[closing], &lines, &claims).late.len(), 1);
}

#[test]
fn a_line_doubled_behind_a_gate_is_late() {
    let (closing, claims, before, _) = closed();
    let lines = [at(0, 1_005, &before), at(1, 1_005, &before)];
    assert_eq!(behind(&[closing], &lines, &claims).late.len(), 1);
}

#[test]
fn a_request_of_an_attempt_after_the_answer_has_no_excuse() {
    let (closing, claims, _, after) = closed();
    let found = behind(std::slice::from_ref(&closing), &[at(0, 1_220, &after)], &claims);
    assert_eq!((found.begun_after.len(), found.announced), (1, 0));
    let of_nobody = behind(std::slice::from_ref(&closing), &[at(0, 1_220, &[3; 16])], &claims);
    assert_eq!(of_nobody.begun_after.len(), 1);
    let opened = Closing { until_ms: Some(1_210), ..closing };
    assert_eq!(behind(&[opened], &[at(0, 1_220, &after)], &claims), BehindGates::default());
}

#[test]
fn a_request_without_a_token_has_no_excuse_but_what_was_announced() {
    let (closing, claims, before, _) = closed();
    let nameless = |seq| WitnessLine { token: None, ..at(seq, 1_020, &before) };
    let found = behind(&[closing], &[nameless(0), nameless(1)], &claims);
    assert_eq!((found.announced, found.begun_after.len(), found.late.len()), (1, 1, 0));
}

#[test]
fn a_line_moved_before_its_claim_is_early() {
    let (_, claims, before, _) = closed();
    assert!(claims.early(&[at(0, 995, &before)]).is_empty());
    assert_eq!(claims.early(&[at(0, 990 - CLOCKS_APART_MS - 1, &before)]).len(), 1);
}

#[test]
fn the_busiest_time_is_found_wherever_it_begins() {
    let line = |t_ms, accepted: i64| {
        let people: Vec<_> = (0..accepted).map(|number| (number, WitnessVerdict::Accepted)).collect();
        WitnessLine { t_ms, ..line(0, "ok", &people) }
    };
    assert_eq!(busiest(&[], 1_000), 0);
    let mut lines = [line(0, 1), line(900, 2), line(1_100, 3), line(1_899, 1), line(1_900, 9)];
    assert_eq!(busiest(&lines, 1_000), 13);
    assert_eq!(busiest(&lines, 1), 9);
    lines[0].t_ms = 1_901;
    assert_eq!(busiest(&lines, 1_000), 14, "a line moved into the second");
}
