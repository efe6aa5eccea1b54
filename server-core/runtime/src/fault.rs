//! A device that is lost to this process, as a backend tells of it.

use std::sync::Arc;

use tokio::sync::watch;

/// What the first backend that lost a device said; nothing as long as none has.
#[derive(Debug)]
pub(crate) struct Fault(watch::Sender<Option<Arc<str>>>);

impl Fault {
    pub(crate) fn none() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Notes the first one. Whether it is.
    pub(crate) fn set(&self, message: &str) -> bool {
        self.0.send_if_modified(|fault| {
            let is_first = fault.is_none();
            if is_first {
                *fault = Some(message.into());
            }
            is_first
        })
    }

    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Returns when there is one.
    pub(crate) async fn wait(&self) -> Arc<str> {
        let mut changes = self.0.subscribe();
        match changes.wait_for(Option::is_some).await.map(|fault| fault.clone()) {
            Ok(Some(fault)) => fault,
            // The sender is `self`, and what was waited for is there.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_counts_and_who_waits_is_told() {
        let fault = Arc::new(Fault::none());
        assert!(!fault.is_set() && fault.get().is_none());
        let waiting = {
            let fault = Arc::clone(&fault);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(fault.wait())
            })
        };
        assert!(fault.set("GPU 0") && !fault.set("GPU 1"));
        assert_eq!(&*waiting.join().unwrap(), "GPU 0");
        assert_eq!(fault.get().as_deref(), Some("GPU 0"));
    }
}
