//! Requests that are caused by requests: the steps of an ensemble and the calls of a backend. They read their answers
//! elsewhere than in a front end, are cancelled with what caused them, and inherit from it.

use std::sync::Arc;
use std::task::{Context, Poll};

use trireme_scheduling::MemberId;

use crate::journey::{Journey, Letter};
use crate::mailbox::Mailbox;
use crate::model::ModelVersion;
use crate::statistics::Sums;

/// Something that ends when the request that it belongs to is cancelled.
pub(crate) trait Dependent: Send + Sync {
    fn cancel(self: Arc<Self>);
}

/// What a request has from the one that caused it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Lineage {
    /// Nanoseconds of the monotonic clock; 0: none.
    pub(crate) deadline_ns: u64,
    /// How many requests caused each other above this one.
    pub(crate) depth: u32,
    /// Where the times are added up, besides the model's own statistics.
    pub(crate) sums: Option<Arc<Sums>>,
    /// W3C `traceparent`, or empty.
    pub(crate) trace_parent: String,
    /// The requests that this one is called by.
    pub(crate) ancestors: Option<Arc<Ancestor>>,
}

/// A request whose backend has called.
#[derive(Debug)]
pub(crate) struct Ancestor {
    generation: u64,
    /// Its instance does nothing else until the call returns.
    waits: bool,
    /// What its instance holds of the server's resources meanwhile.
    share: Option<MemberId>,
    above: Option<Arc<Ancestor>>,
}

impl Ancestor {
    pub(crate) fn new(caller: &Journey, waits: bool, above: Option<Arc<Self>>) -> Arc<Self> {
        let share = caller.share().filter(|_| waits);
        Arc::new(Self { generation: caller.model.generation(), waits, share, above })
    }
}

impl Lineage {
    /// What the requests that wait for this one take from `model`, so that it can never run.
    pub(crate) fn takes_from(&self, model: &ModelVersion) -> Option<&'static str> {
        let (instances, room) = model.room();
        let (mut waiting, mut unfinished, mut held) = (0, 0, Vec::new());
        let mut next = self.ancestors.as_ref();
        while let Some(ancestor) = next {
            held.extend(ancestor.share);
            if ancestor.generation == model.generation() {
                waiting += u32::from(ancestor.waits);
                unfinished += 1;
            }
            next = ancestor.above.as_ref();
        }
        if instances > 0 && (waiting >= instances || room.is_some_and(|room| unfinished >= room)) {
            return Some("all its instances are occupied");
        }
        let limiter = model.limiter.as_ref().filter(|_| !held.is_empty())?;
        let starves = !model.queue().could_run(limiter, &held);
        starves.then_some("what it needs of the rate limiter's resources is held")
    }
}

/// Takes answers as they come, on the threads that they come on.
pub(crate) trait Reader: Send + Sync {
    /// One answer; true if the backend should pause. No lock of the request is held.
    fn letter(&self, letter: Letter) -> bool;

    /// Calls `call` once, when there is room.
    fn on_writable(&self, call: Box<dyn FnOnce() + Send>);

    /// Whether output `name` is of use in the memory of a device.
    fn takes_devices(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// Where the answers of a request go.
pub(crate) enum Outlet {
    /// To a front end's task.
    Mailbox(Mailbox<Letter>),
    /// To the request that caused this one.
    Reader(Arc<dyn Reader>),
}

impl Outlet {
    pub(crate) fn mailbox() -> Self {
        Self::Mailbox(Mailbox::new())
    }

    /// True if the backend should pause.
    pub(crate) fn push(&self, letter: Letter) -> bool {
        match self {
            Self::Mailbox(mailbox) => mailbox.push(letter),
            Self::Reader(reader) => reader.letter(letter),
        }
    }

    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Letter> {
        match self {
            Self::Mailbox(mailbox) => mailbox.poll_next(context),
            Self::Reader(_) => Poll::Pending,
        }
    }

    /// Whether there is something to read.
    pub(crate) fn has_letter(&self) -> bool {
        matches!(self, Self::Mailbox(mailbox) if mailbox.has_letter())
    }

    /// Whether so much waits that no more is taken.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Mailbox(mailbox) if mailbox.is_full())
    }

    pub(crate) fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        match self {
            Self::Mailbox(mailbox) => mailbox.on_writable(call),
            Self::Reader(reader) => reader.on_writable(call),
        }
    }

    /// Whether output `name` is of use in the memory of a device.
    pub(crate) fn takes_devices(&self, name: &str) -> bool {
        matches!(self, Self::Reader(reader) if reader.takes_devices(name))
    }

    /// Nobody reads any more.
    pub(crate) fn abandon(&self) {
        if let Self::Mailbox(mailbox) = self {
            mailbox.abandon();
        }
    }
}
