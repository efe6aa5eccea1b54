//! One connection from its first request to its end.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;

/// How old a connection may become.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Age {
    /// After this it takes no more calls; unbounded if absent.
    pub(crate) limit: Option<Duration>,
    /// Then the running ones have this long; unbounded if absent.
    pub(crate) grace: Option<Duration>,
}

/// Serves a connection until its client ends it, `shutdown` is ready or it is too old; running calls are finished.
pub(crate) async fn serve<C: GracefulConnection>(
    connection: C,
    age: Age,
    shutdown: impl Future<Output = ()>,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    let too_old = async {
        match age.limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => pending().await,
        }
    };
    let grace = tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown => None,
        () = too_old => age.grace,
    };
    connection.as_mut().graceful_shutdown();
    match grace {
        None => connection.await,
        // Dropping it ends the calls that still run.
        Some(grace) => tokio::time::timeout(grace, connection).await.unwrap_or(Ok(())),
    }
}
