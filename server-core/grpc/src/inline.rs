//! Runs the streams of a connection in the connection's own task: a call that is answered within microseconds is not
//! worth a task of its own and the wake-up of another thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::stream::FuturesUnordered;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the tasks that hyper starts for a connection.
#[derive(Clone, Default)]
pub(crate) struct Inline {
    fresh: Arc<Mutex<Vec<Task>>>,
}

impl Inline {
    fn take(&self) -> Vec<Task> {
        std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection together with its streams; it ends with the connection.
    pub(crate) fn with<C: Future + Unpin>(self, connection: C) -> Connected<C> {
        Connected { connection, streams: FuturesUnordered::new(), inline: self }
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Inline {
    fn execute(&self, task: F) {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(task));
    }
}

/// See [`Inline::with`].
pub(crate) struct Connected<C> {
    connection: C,
    streams: FuturesUnordered<Task>,
    inline: Inline,
}

impl<C: Future + Unpin> Future for Connected<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(context) {
                return Poll::Ready(ended);
            }
            let fresh = this.inline.take();
            let started = !fresh.is_empty();
            this.streams.extend(fresh);
            let mut ended = false;
            while let Poll::Ready(Some(())) = Pin::new(&mut this.streams).poll_next(context) {
                ended = true;
            }
            // A stream that has got on has something for the connection to send.
            if !started && !ended {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::rt::Executor;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::task::Waker;

    #[test]
    fn tasks_run_with_the_connection_and_end_with_it() {
        let inline = Inline::default();
        let (ran, polls) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut connection = Box::pin({
            let (inline, ran, polls) = (inline.clone(), Arc::clone(&ran), Arc::clone(&polls));
            std::future::poll_fn(move |_| {
                let ran = Arc::clone(&ran);
                match polls.fetch_add(1, Relaxed) {
                    0 => inline.execute(async move { drop(ran.fetch_add(1, Relaxed)) }),
                    1 => inline.execute(std::future::pending()),
                    2 => {}
                    _ => return Poll::Ready("ended"),
                }
                Poll::Pending
            })
        });
        let mut both = std::pin::pin!(inline.with(connection.as_mut()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(both.as_mut().poll(&mut context).is_pending());
        assert_eq!((ran.load(Relaxed), polls.load(Relaxed)), (1, 3));
        assert_eq!(both.as_mut().poll(&mut context), Poll::Ready("ended"));
    }
}
