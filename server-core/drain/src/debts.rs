use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::unsent::unsent;

/// Between two hands nobody carries a debt for a moment: nothing is owed when that was so for as long.
const QUIET: Duration = Duration::from_millis(20);

/// What a server owes its clients, or one connection of it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Debts(Arc<Book>);

#[derive(Debug, Default)]
struct Book {
    open: AtomicU64,
    /// All that there ever were.
    opened: AtomicU64,
    farewell: AtomicBool,
    ending: AtomicBool,
    /// The server's, if this is a connection's.
    server: Option<Debts>,
}

/// Something that is not yet written to its client. Dropped when it is, or when the client is gone.
#[derive(Debug)]
pub struct Debt(Debts);

impl Debts {
    /// For one connection; what it owes, the server owes.
    #[must_use]
    pub fn of_connection(&self) -> Self {
        Self(Arc::new(Book { server: Some(self.clone()), ..Book::default() }))
    }

    /// One more.
    pub fn open(&self) -> Debt {
        if let Some(server) = &self.0.server {
            server.0.opened.fetch_add(1, SeqCst);
            server.0.open.fetch_add(1, SeqCst);
        }
        self.0.opened.fetch_add(1, SeqCst);
        self.0.open.fetch_add(1, SeqCst);
        Debt(self.clone())
    }

    /// How many are open.
    pub fn count(&self) -> u64 {
        self.0.open.load(SeqCst)
    }

    /// Whoever is answered from now on is asked to come back over another connection.
    pub fn begin_farewell(&self) {
        self.0.farewell.store(true, SeqCst);
    }

    /// Whether connections that get an answer are to end with it.
    pub fn is_farewell(&self) -> bool {
        self.0.server.as_ref().unwrap_or(self).0.farewell.load(SeqCst)
    }

    /// The server is about to end: connections that close stay until their clients have closed them, too.
    pub fn begin_end(&self) {
        self.0.ending.store(true, SeqCst);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.0.server.as_ref().unwrap_or(self).0.ending.load(SeqCst)
    }

    /// Returns when nothing is owed, and what was written to sockets of the local `ports` has reached the other side.
    pub async fn settled(&self, ports: &[u16]) {
        loop {
            let before = self.0.opened.load(SeqCst);
            let quiet = self.count() == 0;
            tokio::time::sleep(QUIET).await;
            if quiet && self.count() == 0 && self.0.opened.load(SeqCst) == before && !unsent(ports) {
                return;
            }
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        let book = &self.0.0;
        book.open.fetch_sub(1, SeqCst);
        if let Some(server) = &book.server {
            server.0.open.fetch_sub(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::time::{Instant, sleep, timeout};

    #[tokio::test(start_paused = true)]
    async fn nothing_is_settled_before_the_last_debt() {
        let debts = Debts::default();
        let (first, second) = (debts.open(), debts.open());
        drop(first);
        assert!(timeout(Duration::from_secs(60), debts.settled(&[])).await.is_err());
        drop(second);
        timeout(Duration::from_secs(1), debts.settled(&[])).await.unwrap();
    }

    #[test]
    fn what_a_connection_owes_the_server_owes() {
        let server = Debts::default();
        let (one, other) = (server.of_connection(), server.of_connection());
        let debt = one.open();
        assert_eq!((server.count(), one.count(), other.count()), (1, 1, 0));
        drop(debt);
        assert_eq!((server.count(), one.count()), (0, 0));
        server.begin_farewell();
        assert!(one.is_farewell() && !one.is_ending());
        server.begin_end();
        assert!(one.is_ending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_debt_that_changes_hands_is_not_overlooked() {
        let debts = Debts::default();
        let start = Instant::now();
        let carrier = {
            let debts = debts.clone();
            tokio::spawn(async move {
                // From hand to hand every 15 ms, with a moment in between in which nobody has it.
                for _ in 0..20 {
                    let debt = debts.open();
                    sleep(Duration::from_millis(14)).await;
                    drop(debt);
                    sleep(Duration::from_millis(1)).await;
                }
            })
        };
        sleep(Duration::from_millis(1)).await;
        debts.settled(&[]).await;
        assert!(carrier.is_finished() && start.elapsed() >= Duration::from_millis(300));
    }
}
