//! The checker must find what is wrong with a pair of logs that was right before it was tampered with.

use dispatch_workers::sandbox::witness::WitnessRecipient;

use super::*;

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
    let figures = Figures { recipients: 4, accepted: 1, acceptances: 2, undecided: 1, ..Figures::default() };
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
