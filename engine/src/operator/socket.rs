//! The operator's socket: a Unix domain socket beside the ledger, for its owner only.
//!
//! An order is one line of JSON, and so is its answer; then the connection ends. Orders are taken one after the other.
//! Whoever may connect could read ledger and key as well: the socket's mode is theirs, 0600.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use dispatch_schemas::ids::KeyId;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

use super::{Answer, Order, Refusal};
use crate::engine::Opened;

/// How long one order may take, from the connection to its answer.
const ORDER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an answer is waited for: orders before this one, and the end of the engine's start.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of an order; names and labels are short.
const ORDER_BYTES_MAX: u64 = 16 << 10;
/// Bytes of an answer: some 200,000 keys.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The pause after a connection could not be taken: out of file descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the socket of a ledger is.
#[must_use]
pub fn path_of(ledger: &Path) -> PathBuf {
    PathBuf::from(format!("{}.sock", ledger.display()))
}

/// Takes orders for a ledger. Removed from its folder when dropped.
#[derive(Debug)]
pub struct OperatorSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl OperatorSocket {
    /// Listens beside a ledger, in place of a socket that a killed process left. Only for whoever holds its lock.
    ///
    /// # Errors
    /// When the socket cannot be made: the path is longer than such a socket's may be (107 bytes on Linux), mostly.
    pub fn bind(ledger: &Path) -> io::Result<Self> {
        let path = path_of(ledger);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Made in a folder nobody else can enter, so that there is no moment in which others could connect.
        let private = tempfile::Builder::new().prefix(".dispatch").rand_bytes(4).tempdir_in(folder)?;
        let made = private.path().join("s");
        let listener = UnixListener::bind(&made)?;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&made, &path)?;
        Ok(Self { listener, path })
    }

    /// Carries out orders until it is dropped. `revoked` hears of each key that was revoked, before its operator does.
    pub async fn serve(&self, opened: &Opened, revoked: impl Fn(KeyId)) {
        loop {
            match self.listener.accept().await {
                Ok((connection, _)) => {
                    match tokio::time::timeout(ORDER_TIME_MAX, take_order(connection, opened, &revoked)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::debug!(error = %error.kind(), "an operator's connection ended early");
                        }
                        Err(_) => tracing::debug!("an operator's connection was cut off: it took too long"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "an operator's connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for OperatorSocket {
    fn drop(&mut self) {
        // One that stays behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn take_order(connection: UnixStream, opened: &Opened, revoked: impl Fn(KeyId)) -> io::Result<()> {
    let mut connection = BufReader::new(connection);
    let mut line = Vec::new();
    (&mut connection).take(ORDER_BYTES_MAX).read_until(b'\n', &mut line).await?;
    let answer = match serde_json::from_slice::<Order>(&line) {
        Ok(order) => order.carry_out(opened).await,
        Err(_) => Err(Refusal::Wrong(
            "the running engine does not know this command; it is of another version than `dispatch` here".to_owned(),
        )),
    };
    if let Ok(Answer::Revoked(key)) = &answer {
        revoked(key.id);
    }
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    connection.write_all(&text).await?;
    connection.shutdown().await
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens: nothing was asked.
    #[error("nobody listens on {}", .0.display())]
    Nobody(PathBuf),
    /// The engine did not answer, or not in full.
    #[error(
        "the running engine broke off ({0}); what it did is not known, so look with `dispatch keys list` before trying \
         again"
    )]
    Broken(io::ErrorKind),
}

/// Has an order carried out by the engine that runs on a ledger.
///
/// # Errors
/// When there is none, or it breaks off.
pub async fn ask(ledger: &Path, order: &Order) -> Result<Result<Answer, Refusal>, AskError> {
    let path = path_of(ledger);
    let connection = match UnixStream::connect(&path).await {
        Ok(connection) => connection,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(AskError::Nobody(path));
        }
        Err(error) => return Err(AskError::Broken(error.kind())),
    };
    let answered = tokio::time::timeout(ANSWER_TIME_MAX, exchange(connection, order)).await;
    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| AskError::Broken(error.kind()))
}

async fn exchange(mut connection: UnixStream, order: &Order) -> io::Result<Result<Answer, Refusal>> {
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    connection.write_all(&line).await?;
    let mut answer = Vec::new();
    connection.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{api::tests::world::World, operator::NewKey};

    #[tokio::test]
    async fn orders_are_carried_out_by_whoever_has_the_ledger() {
        let world = World::new().await;
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.db");
        let new = |label: &str| {
            Order::CreateKey(NewKey {
                tenant: "acme".to_owned(),
                label: label.to_owned(),
                permissions: vec![dispatch_schemas::api::keys::Permission::Read],
                days: 1,
            })
        };
        assert!(matches!(ask(&ledger, &new("x")).await, Err(AskError::Nobody(_))));
        // What a killed process leaves.
        std::fs::write(path_of(&ledger), "").unwrap();

        let socket = OperatorSocket::bind(&ledger).unwrap();
        assert_eq!(std::fs::metadata(path_of(&ledger)).unwrap().permissions().mode() & 0o777, 0o600);
        let opened = world.opened();
        let heard = Mutex::new(Vec::new());
        let asks = async {
            let Ok(Ok(Answer::Created(made))) = ask(&ledger, &new("crm")).await else { panic!("no key") };
            assert!(made.key.starts_with("dsp_live_") && !format!("{made:?}").contains(&made.key));
            let wrong = ask(&ledger, &new("two\nlines")).await.unwrap();
            assert!(matches!(&wrong, Err(Refusal::Wrong(why)) if why.contains("--label")), "{wrong:?}");
            assert!(heard.lock().unwrap().is_empty());
            let Ok(Ok(Answer::Revoked(_))) = ask(&ledger, &Order::RevokeKey { id: made.id }).await else {
                panic!("not revoked")
            };
            assert_eq!(*heard.lock().unwrap(), [made.id]);
            // One that says nothing and goes holds up nobody.
            drop(UnixStream::connect(path_of(&ledger)).await.unwrap());
            let all = Order::ListKeys { tenant: Some("acme".to_owned()) };
            let Ok(Ok(Answer::Keys(keys))) = ask(&ledger, &all).await else { panic!("no list") };
            let key = keys.iter().find(|listed| listed.key.id == made.id).unwrap();
            assert!(key.tenant_name == "acme" && key.key.revoked_at.is_some());
        };
        tokio::select! {
            () = socket.serve(&opened, |id| heard.lock().unwrap().push(id)) => {}
            () = asks => {}
        }
        drop(socket);
        assert!(!path_of(&ledger).exists());
    }
}
