//! Processor time by process, from `/proc` (Linux).

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinHandle;

/// Clock ticks of `/proc` in a second; the same on every Linux that programs see.
const TICKS_PER_SECOND: f64 = 100.0;
/// How often a process that will end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Seconds of processor by the name of the service.
pub(super) struct Spent(BTreeMap<String, f64>);

/// What servers have used so far, by name.
pub(super) fn processor_time() -> Result<Spent, Box<dyn Error>> {
    let mut spent = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some((command, seconds)) = name.to_str().and_then(|pid| pid.parse().ok()).and_then(used) else { continue };
        let service = match command.as_str() {
            "postgres" => "PostgreSQL",
            "beam.smp" => "RabbitMQ",
            _ => continue,
        };
        *spent.entry(service.to_owned()).or_default() += seconds;
    }
    Ok(Spent(spent))
}

impl Spent {
    /// What was used since, together with that of processes that have ended. A backend of PostgreSQL that has ended
    /// takes its time with it, so the server's is a lower bound.
    pub(super) fn since(&self, before: &Self, ended: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
        let mut spent = ended.clone();
        for (service, seconds) in &self.0 {
            spent.insert(service.clone(), (seconds - before.0.get(service).copied().unwrap_or(0.0)).max(0.0));
        }
        spent
    }
}

/// Name and processor seconds of a process, with those of its children that were waited for.
fn used(pid: u32) -> Option<(String, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let command = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    // utime, stime, cutime, cstime are the fields 14 to 17; the first two stand before the tail.
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some((command, ticks / TICKS_PER_SECOND))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Watches a process and its children until it ends.
pub(super) fn watch(pid: u32) -> Watched {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let looking = tokio::spawn({
        let seen = seen.clone();
        async move {
            loop {
                let mut now = BTreeMap::new();
                if let Some((_, seconds)) = used(pid) {
                    now.insert("engine".to_owned(), seconds);
                }
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                    if parent(child) == Some(pid)
                        && let Some((_, seconds)) = used(child)
                    {
                        *now.entry("sandbox".to_owned()).or_default() += seconds;
                    }
                }
                remember(&seen, now);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    });
    Watched { seen, looking }
}

fn remember(seen: &Mutex<BTreeMap<String, f64>>, now: BTreeMap<String, f64>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, seconds) in now {
        let most = seen.entry(name).or_default();
        *most = most.max(seconds);
    }
}

/// A process that is watched.
pub(super) struct Watched {
    seen: Arc<Mutex<BTreeMap<String, f64>>>,
    looking: JoinHandle<()>,
}

impl Watched {
    /// What was last seen.
    pub(super) async fn end(self) -> BTreeMap<String, f64> {
        self.looking.abort();
        let _ = self.looking.await;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
