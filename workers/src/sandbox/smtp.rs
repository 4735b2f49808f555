//! The fake SMTP relay.

use std::{io, sync::Arc};

use tokio::net::TcpListener;

use super::{FaultPlan, Witness};

/// Takes mail on `listener` until it fails.
///
/// # Errors
/// When no more connections can be accepted.
pub async fn serve(
    listener: TcpListener,
    witness: Arc<dyn Witness>,
    faults: Arc<dyn FaultPlan>,
    slow_ms: u64,
) -> io::Result<()> {
    let _ = (&witness, &faults, slow_ms);
    loop {
        drop(listener.accept().await?);
    }
}
