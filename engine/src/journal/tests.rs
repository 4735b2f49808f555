use dispatch_schemas::ids::{AttemptId, CampaignId};
use tempfile::TempDir;

use super::*;

fn entry(attempt: i64) -> Entry {
    let json = serde_json::json!({
        "campaign": CampaignId(7), "attempt": AttemptId(attempt), "now_ms": 1_000,
        "outcomes": [
            [0, {"accepted": "abc"}], [1, "duplicate"], [2, {"failed": "http_400"}], [7, {"unsendable": "template_variable_missing:Plan"}],
            [3, {"retry": {"at_ms": 5_000, "code": "http_503", "counts": true, "alone": false}}],
            [4, {"released": {"alone": true}}], [5, {"unknown": {"code": "timeout", "look_at_ms": 9_000}}], [6, "erased"],
        ],
    });
    serde_json::from_value(json).unwrap()
}

struct Running {
    steps: mpsc::Sender<Step>,
    left: Vec<Entry>,
    writer: std::thread::JoinHandle<()>,
}

fn run(folder: &Path) -> Running {
    let (mut segments, left) = Segments::open(folder).unwrap();
    segments.bytes_max = 2_048;
    let (steps, waiting) = mpsc::channel(8);
    Running { steps, left, writer: std::thread::spawn(move || segments.write(waiting)) }
}

impl Running {
    fn keep(&self, entry: &Entry) -> u64 {
        let (reply, written) = oneshot::channel();
        self.steps.blocking_send(Step::Keep { framed: entry.framed(), reply }).unwrap();
        written.blocking_recv().unwrap().unwrap()
    }

    fn recorded(&self, segment: u64) {
        self.steps.blocking_send(Step::Recorded { segment }).unwrap();
    }

    fn stop(self) {
        drop(self.steps);
        self.writer.join().unwrap();
    }
}

fn segments(folder: &TempDir) -> usize {
    std::fs::read_dir(folder).unwrap().filter(|file| file.as_ref().unwrap().file_name() != "lock").count()
}

#[test]
fn what_the_ledger_has_not_taken_is_found_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(folder.path());
    assert!(first.left.is_empty());
    first.keep(&entry(1));
    first.keep(&entry(2));
    first.stop();
    let second = run(folder.path());
    assert_eq!(second.left, [entry(1), entry(2)]);
    assert_eq!(second.left[0].outcomes().len(), 8, "each kind of outcome is read back");
    second.stop();
    assert_eq!(run(folder.path()).left.len(), 2, "until the ledger has it, it stays");
}

#[test]
fn a_stop_with_everything_recorded_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = run(folder.path());
    for number in 0..5 {
        let segment = journal.keep(&entry(number));
        journal.recorded(segment);
    }
    journal.stop();
    assert_eq!(segments(&folder), 0);
}

#[test]
fn what_was_left_is_forgotten_once_the_ledger_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(folder.path());
    first.keep(&entry(1));
    first.stop();
    let second = run(folder.path());
    second.steps.blocking_send(Step::ForgetLeft).unwrap();
    second.stop();
    assert_eq!(segments(&folder), 0);
}

#[test]
fn full_segments_are_followed_by_others_and_removed_when_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let journal = run(folder.path());
    let mut kept = Vec::new();
    while kept.last().is_none_or(|segment| *segment < 3) {
        kept.push(journal.keep(&entry(1)));
    }
    assert_eq!(segments(&folder), 3);
    for segment in kept.iter().filter(|segment| **segment < 3) {
        journal.recorded(*segment);
    }
    journal.keep(&entry(2));
    assert_eq!(segments(&folder), 1);
    journal.stop();
}

#[test]
fn half_an_entry_and_a_damaged_one_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = entry(1).framed();
    let mut damaged = entry(2).framed();
    damaged[40] ^= 1;
    bytes.extend_from_slice(&damaged);
    bytes.extend_from_slice(&entry(3).framed());
    let torn = entry(4).framed();
    bytes.extend_from_slice(&torn[..torn.len() / 2]);
    std::fs::write(folder.path().join("outcomes-0000000001.log"), bytes).unwrap();
    let journal = run(folder.path());
    assert_eq!(journal.left, [entry(1), entry(3)]);
    assert_eq!(journal.keep(&entry(5)), 2, "nothing is written behind a torn entry");
    journal.stop();
}
