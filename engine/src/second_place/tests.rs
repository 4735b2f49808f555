use std::time::{Duration, UNIX_EPOCH};

use dispatch_schemas::ids::TenantId;
use tempfile::TempDir;

use super::*;

/// When the files of these tests were written, milliseconds since 1970: their times are the machine's.
fn now_ms(folder: &TempDir) -> i64 {
    let file = tempfile::NamedTempFile::new_in(folder).unwrap();
    let written = file.as_file().metadata().unwrap().modified().unwrap();
    i64::try_from(written.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn open(folder: &TempDir, ledger: u8, process: u8) -> SecondPlace {
    let place = Place { folder: folder.path(), days: 30, fingerprint: &[ledger; 32], process: [process; 8] };
    SecondPlace::open(place).unwrap()
}

fn note(tenant: i64) -> Note {
    Note::TenantOpened { tenant: TenantId(tenant) }
}

async fn tenants_since(place: &SecondPlace, since_ms: i64) -> Vec<i64> {
    let noted = place.since(since_ms).await.unwrap();
    let tenant = |noted: Noted| match noted.note {
        Note::TenantOpened { tenant } => tenant.0,
        other => panic!("{other:?} was not noted"),
    };
    noted.into_iter().map(tenant).collect()
}

fn files(folder: &TempDir, ending: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    all.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect()
}

#[tokio::test]
async fn what_any_process_of_a_ledger_noted_is_told_to_all_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, others) = (open(&folder, 1, 1), open(&folder, 1, 2), open(&folder, 2, 1));
    first.note(100, note(1)).await.unwrap();
    second.note(99, note(2)).await.unwrap();
    first.note(101, note(3)).await.unwrap();
    others.note(100, note(4)).await.unwrap();
    drop(first);
    let later = open(&folder, 1, 3);
    assert_eq!(tenants_since(&later, 0).await, [2, 1, 3]);
    assert_eq!(tenants_since(&later, 100).await, [1, 3]);
    assert_eq!(tenants_since(&others, 0).await, [4]);
}

#[tokio::test]
async fn the_furthest_head_of_all_processes_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder, 1, 1), open(&folder, 1, 2));
    assert_eq!(first.head().await.unwrap(), None);
    first.remember_head(7).await.unwrap();
    second.remember_head(5).await.unwrap();
    first.remember_head(8).await.unwrap();
    assert_eq!(second.head().await.unwrap(), Some(8));
    assert_eq!(open(&folder, 2, 1).head().await.unwrap(), None);
    assert_eq!(files(&folder, "head").len(), 2, "one for each process, whatever it remembers");
}

#[tokio::test]
async fn half_a_note_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let place = open(&folder, 1, 1);
    place.note(100, note(1)).await.unwrap();
    let file = files(&folder, "notes").remove(0);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
    assert_eq!(tenants_since(&place, 0).await, [1]);
}

#[tokio::test]
async fn notes_of_a_day_follow_in_another_file_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let day = Duration::from_millis(24 * 3_600_000);
    let now_ms = now_ms(&folder);
    let earlier = open(&folder, 1, 1);
    earlier.note(now_ms, note(1)).await.unwrap();
    let old = files(&folder, "notes").remove(0);
    let changed_before = |days: u32| {
        let changed = UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap()) - day * days;
        let file = std::fs::File::options().append(true).open(&old).unwrap();
        file.set_times(std::fs::FileTimes::new().set_modified(changed)).unwrap();
    };
    changed_before(29);
    let place = open(&folder, 1, 2);
    place.note(now_ms, note(2)).await.unwrap();
    assert_eq!(files(&folder, "notes").len(), 2, "a copy of that age may be restored");
    changed_before(31);
    place.note(now_ms + 1, note(3)).await.unwrap();
    assert_eq!(files(&folder, "notes").len(), 2);
    place.note(now_ms + 24 * 3_600_000, note(4)).await.unwrap();
    assert!(!old.exists());
    assert_eq!(tenants_since(&place, 0).await, [2, 3, 4]);
    assert!(place.keeps(now_ms - 29 * DAY_MS, now_ms) && !place.keeps(now_ms - 30 * DAY_MS, now_ms));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_refused_and_one_that_went_away_said() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("second");
    let place = Place { folder: &there, days: 30, fingerprint: &[1; 32], process: [1; 8] };
    let refused = SecondPlace::open(place).unwrap_err().to_string();
    assert!(refused.contains("second_place_folder") && refused.contains("not found"), "{refused}");
    std::fs::create_dir(&there).unwrap();
    let place = SecondPlace::open(place).unwrap();
    std::fs::remove_dir(&there).unwrap();
    place.note(1, note(1)).await.unwrap_err();
    place.remember_head(1).await.unwrap_err();
    std::fs::create_dir(&there).unwrap();
    place.note(2, note(2)).await.unwrap();
    assert_eq!(tenants_since(&place, 0).await, [2]);
}

#[test]
fn a_claim_tells_its_deliveries_with_their_keys() {
    let claimed = Claimed {
        tenant: TenantId(1),
        campaign: dispatch_schemas::ids::CampaignId(2),
        attempt: dispatch_schemas::ids::AttemptId(3),
        token: Hash([4; 16]),
        root: dispatch_schemas::ids::AttemptId(3),
        ranges: vec![(0, 2), (9, 9)],
        epochs: vec![(2, 3)],
        alone: vec![(1, 2)],
    };
    assert_eq!(claimed.deliveries(), [(0, 0, false), (1, 0, true), (2, 3, true), (9, 0, false)]);
    let text = serde_json::to_string(&claimed).unwrap();
    assert_eq!(serde_json::from_str::<Claimed>(&text).unwrap(), claimed);
}
