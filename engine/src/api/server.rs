//! Puts a router on a socket: connections bounded, slow ones cut off, a stop that lets running calls end.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tower::ServiceExt as _;

use super::authentication::Source;

/// Connections at once; further ones wait in the system's queue. Each may hold one JSON body.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a request's head may take to arrive, and how long a kept connection may stay quiet.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head; past it the answer is 431.
const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// Header fields of a request; past it the answer is 431.
const HEADERS_MAX: usize = 100;
/// How long calls that run when the server stops may take to end: longer than any but an upload.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// The pause after a connection could not be taken: out of file descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else does.
    #[error(
        "cannot listen on {address}: the port is in use. Stop the program that has it, or choose another port with \
         --listen, `api.listen` in the settings or DISPATCH_API__LISTEN"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Not allowed.
    #[error(
        "cannot listen on {address}: not permitted. Ports below 1024 need rights this program should not have; choose a higher one"
    )]
    NotPermitted {
        /// The address.
        address: SocketAddr,
    },
    /// Another reason.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Listens on an address.
///
/// # Errors
/// Says why not and what to do.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { address },
        _ => BindError::Other { address, source },
    })
}

/// Serves until `shutdown` ends, then takes no more connections, lets running calls end and returns.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let (slot, socket, source) = tokio::select! {
            () = &mut shutdown => break,
            taken = next_connection(&listener, &slots) => taken,
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_connection(socket, source, router.clone(), stopping.clone(), slot));
    }
    drop(listener);
    drop(stop);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME_MAX, all_ended).await.is_err() {
        tracing::warn!(calls = connections.len(), "calls were still running when the API stopped; they are cut off");
    }
}

async fn next_connection(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, TcpStream, SocketAddr) {
    // The semaphore is never closed, so there always comes a slot.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((socket, source)) => return (slot, socket, source),
            Err(error) => {
                tracing::warn!(%error, "a connection to the API could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    socket: TcpStream,
    source: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<()>,
    slot: Option<OwnedSemaphorePermit>,
) {
    // Answers are small and waited for; a socket that will not take the option serves all the same.
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Source(source.ip()));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
    drop(slot);
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn answer_to(address: SocketAddr, request: &[u8]) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // A server that has refused may close before it has read all.
        let _ = socket.write_all(request).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_port_in_use_is_said_with_what_to_do() {
        let (_listener, address) = listening().await;
        let error = bind(address).await.unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }));
        assert!(
            error.to_string().contains(&address.to_string()) && error.to_string().contains("--listen, `api.listen`")
        );
    }

    #[tokio::test]
    async fn a_running_call_ends_before_the_server_does() {
        let (listener, address) = listening().await;
        let (started, mut has_started) = tokio::sync::mpsc::channel::<()>(1);
        let (release, released) = watch::channel(());
        let slow = move || {
            let (started, mut released) = (started.clone(), released.clone());
            async move {
                started.send(()).await.unwrap();
                released.changed().await.unwrap();
                "done"
            }
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, Router::new().route("/", get(slow)), async {
            let _ = stopped.await;
        }));
        let client = tokio::spawn(answer_to(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").into_future());
        has_started.recv().await.unwrap();
        stop.send(()).unwrap();
        release.send(()).unwrap();
        assert!(client.await.unwrap().ends_with("done"));
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_or_doubled_is_refused() {
        let (listener, address) = listening().await;
        tokio::spawn(serve(listener, Router::new().route("/", get(|| async { "fine" })), std::future::pending()));
        let fine = answer_to(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");

        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(100_000));
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\na: {}\r\n\r\n", "b".repeat(1 << 20));
        let both = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".to_owned();
        for request in [many, long, both] {
            let answer = answer_to(address, request.as_bytes()).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
    }
}
