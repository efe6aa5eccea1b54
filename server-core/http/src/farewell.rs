//! When a connection is told that the server ends, beyond the header that answers of HTTP/1 have then.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use http::Version;
use tokio::sync::Notify;
use trireme_drain::Debts;

/// What one connection is known to be.
#[derive(Debug, Default)]
pub(crate) struct Farewell {
    multiplexed: AtomicBool,
    /// Something was asked since the server ends.
    asked: Notify,
}

impl Farewell {
    /// A request has come.
    pub(crate) fn note(&self, version: Version, debts: &Debts) {
        if version == Version::HTTP_2 {
            self.multiplexed.store(true, SeqCst);
            if debts.is_farewell() {
                self.asked.notify_one();
            }
        }
    }

    /// Returns when the connection may be told to end, if it has to be; the server ends.
    ///
    /// With HTTP/1 a client that idles would take the end of its connection for the answer to what it asks just then: it
    /// is left alone until the program ends. With HTTP/2 the goodbye says what is still answered; but some clients forget
    /// over it what they have received and not yet read. So one that is owed something is told when it asks for more.
    pub(crate) async fn goaway(&self, debts: &Debts) {
        if !self.multiplexed.load(SeqCst) || debts.count() > 0 {
            self.asked.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn is_told(farewell: &Farewell, debts: &Debts) -> bool {
        timeout(Duration::from_secs(60), farewell.goaway(debts)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_can_be_told_without_a_loss_is() {
        let debts = Debts::default();
        debts.begin_farewell();
        let farewell = Farewell::default();
        assert!(!is_told(&farewell, &debts).await, "nothing was asked yet");
        farewell.note(Version::HTTP_11, &debts);
        assert!(!is_told(&farewell, &debts).await, "answers of HTTP/1 say it");

        let farewell = Farewell::default();
        let debts = Debts::default();
        farewell.note(Version::HTTP_2, &debts);
        assert!(is_told(&farewell, &debts).await);
        let debt = debts.open();
        debts.begin_farewell();
        assert!(!is_told(&farewell, &debts).await, "it may be reading");
        farewell.note(Version::HTTP_2, &debts);
        assert!(is_told(&farewell, &debts).await);
        drop(debt);
    }
}
