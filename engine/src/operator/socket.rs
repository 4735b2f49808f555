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

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

use super::{Answer, Change, Order, Refusal};
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

    /// Carries out orders until it is dropped. `changed` hears of each change before its operator does.
    pub async fn serve(&self, opened: &Opened, changed: impl Fn(Change)) {
        loop {
            match self.listener.accept().await {
                Ok((connection, _)) => {
                    match tokio::time::timeout(ORDER_TIME_MAX, take_order(connection, opened, &changed)).await {
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

async fn take_order(connection: UnixStream, opened: &Opened, changed: impl Fn(Change)) -> io::Result<()> {
    let mut connection = BufReader::new(connection);
    let mut line = Vec::new();
    (&mut connection).take(ORDER_BYTES_MAX).read_until(b'\n', &mut line).await?;
    let answer = match serde_json::from_slice::<Order>(&line) {
        Ok(order) => order.carry_out(opened).await,
        Err(_) => Err(Refusal::Wrong(
            "the running engine does not know this command; it is of another version than `dispatch` here".to_owned(),
        )),
    };
    if let Some(change) = answer.as_ref().ok().and_then(Answer::change) {
        changed(change);
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
    /// The socket is there and not for us: nothing was asked.
    #[error(
        "the running engine cannot be asked through {} ({kind}); run this as the user it runs as", path.display()
    )]
    Closed {
        /// The socket.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The engine did not answer, or not in full.
    #[error(
        "the running engine broke off ({kind}); what it did is not known, so look with `{listing}` before trying again"
    )]
    Broken {
        /// How.
        kind: io::ErrorKind,
        /// The command that shows what was done.
        listing: &'static str,
    },
}

/// Has an order carried out by the engine that runs on a ledger.
///
/// # Errors
/// When there is none, it may not be asked, or it breaks off.
pub async fn ask(ledger: &Path, order: &Order) -> Result<Result<Answer, Refusal>, AskError> {
    let broken = |kind| AskError::Broken { kind, listing: order.listing() };
    let mut line = serde_json::to_vec(order).map_err(|_| broken(io::ErrorKind::InvalidData))?;
    line.push(b'\n');
    if line.len() as u64 > ORDER_BYTES_MAX {
        return Ok(Err(Refusal::Wrong("a name, label or reason of this command is far too long".to_owned())));
    }
    let path = path_of(ledger);
    let connection = match UnixStream::connect(&path).await {
        Ok(connection) => connection,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(AskError::Nobody(path));
        }
        Err(error) => return Err(AskError::Closed { path, kind: error.kind() }),
    };
    let answered = tokio::time::timeout(ANSWER_TIME_MAX, exchange(connection, &line)).await;
    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| broken(error.kind()))
}

async fn exchange(mut connection: UnixStream, line: &[u8]) -> io::Result<Result<Answer, Refusal>> {
    connection.write_all(line).await?;
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
    use crate::{api::tests::world::World, operator::keys::NewKey};

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
            assert_eq!(std::mem::take(&mut *heard.lock().unwrap()), [Change::KeyRevoked(made.id)]);
            // One that says nothing and goes holds up nobody.
            drop(UnixStream::connect(path_of(&ledger)).await.unwrap());
            let all = Order::ListKeys { tenant: Some("acme".to_owned()) };
            let Ok(Ok(Answer::Keys(keys))) = ask(&ledger, &all).await else { panic!("no list") };
            let key = keys.iter().find(|listed| listed.key.id == made.id).unwrap();
            assert!(key.tenant_name == "acme" && key.key.revoked_at.is_some());
        };
        tokio::select! {
            () = socket.serve(&opened, |change| heard.lock().unwrap().push(change)) => {}
            () = asks => {}
        }
        drop(socket);
        assert!(!path_of(&ledger).exists());
    }

    #[tokio::test]
    async fn an_engine_hears_of_a_closed_tenant_before_its_operator_does() {
        let world = World::new().await;
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.db");
        let socket = OperatorSocket::bind(&ledger).unwrap();
        let opened = world.opened();
        let heard = Mutex::new(Vec::new());
        let close =
            |tenant: &str, reason: &str| Order::CloseTenant { tenant: tenant.to_owned(), reason: reason.to_owned() };
        let asks = async {
            for (tenant, reason, says) in [
                ("acme", "two\nlines", "--reason"),
                ("nobody", "unpaid", "there is no tenant `nobody`"),
                ("acme", &"x".repeat(20_000), "far too long"),
            ] {
                let wrong = ask(&ledger, &close(tenant, reason)).await.unwrap();
                assert!(matches!(&wrong, Err(Refusal::Wrong(why)) if why.contains(says)), "{wrong:?}");
            }
            assert!(heard.lock().unwrap().is_empty());
            let Ok(Ok(Answer::Closed(closed))) = ask(&ledger, &close("acme", " unpaid ")).await else {
                panic!("not closed")
            };
            assert_eq!(closed.tenant.closed.unwrap().reason, "unpaid");
            assert_eq!(std::mem::take(&mut *heard.lock().unwrap()), [Change::Tenant(world.tenant)]);
            let Ok(Ok(Answer::Tenants(tenants))) = ask(&ledger, &Order::ListTenants).await else { panic!("no list") };
            assert!(tenants.iter().any(|tenant| tenant.name == "acme" && tenant.closed.is_some()));
            assert!(heard.lock().unwrap().is_empty());
            let open = Order::OpenTenant { tenant: world.tenant.to_string() };
            let Ok(Ok(Answer::Opened(tenant))) = ask(&ledger, &open).await else { panic!("not opened") };
            assert_eq!(tenant.closed, None);
            assert_eq!(*heard.lock().unwrap(), [Change::Tenant(world.tenant)]);
        };
        tokio::select! {
            () = socket.serve(&opened, |change| heard.lock().unwrap().push(change)) => {}
            () = asks => {}
        }
    }

    #[tokio::test]
    async fn an_engine_that_breaks_off_is_said_with_where_to_look() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.db");
        let listener = UnixListener::bind(path_of(&ledger)).unwrap();
        let hang_up = async { drop(listener.accept().await.unwrap()) };
        let (asked, ()) = tokio::join!(ask(&ledger, &Order::ListTenants), hang_up);
        let error = asked.unwrap_err().to_string();
        assert!(error.contains("broke off") && error.contains("`dispatch tenants list`"), "{error}");
    }
}
