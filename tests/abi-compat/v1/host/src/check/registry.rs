//! What a checked backend holds: tokens in the place of addresses. A token is never used twice, so one that was released
//! is known as such for ever, and it names no memory, so a backend that follows it stops at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use trireme_abi::{Buffer, CallerHandle, RequestHandle, ResponderHandle};

use super::{Rule, report};
use crate::services::HostServices;
use crate::{bls, memory, vtables};

/// A backend under watch.
pub(crate) struct Party {
    pub(crate) name: String,
    pub(crate) services: &'static dyn HostServices,
    number: usize,
}

static PARTIES: OnceLock<Mutex<Vec<&'static Party>>> = OnceLock::new();

impl Party {
    /// The party of this name; the first one of a name stands for all, as libraries are never unloaded.
    pub(crate) fn of(name: &str, services: &'static dyn HostServices) -> &'static Self {
        let mut parties = PARTIES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(party) = parties.iter().find(|party| party.name == name) {
            return party;
        }
        let number = parties.len();
        let party: &'static Self = Box::leak(Box::new(Self { name: name.to_owned(), services, number }));
        parties.push(party);
        party
    }

    fn numbered(number: usize) -> Option<&'static Self> {
        let parties = PARTIES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        parties.get(number).copied()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request = 1,
    Responder = 2,
    Buffer = 3,
    Caller = 4,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Responder => "responder",
            Self::Buffer => "buffer",
            Self::Caller => "caller",
        }
    }
}

/// What a token stands for. It is given back when nobody uses the entry any more.
pub(crate) enum Real {
    Request(*mut RequestHandle),
    Responder(*mut ResponderHandle),
    /// Whether guard bytes follow the memory.
    Buffer(Buffer, bool),
    Caller(*mut CallerHandle),
}

pub(crate) struct Entry {
    pub(crate) party: &'static Party,
    pub(crate) instance: u64,
    pub(crate) real: Real,
    pub(crate) finished: AtomicBool,
    /// What a buffer is given back with; lent by who drops the entry.
    pub(crate) done_event: AtomicU64,
    /// Shared with the callback that ends the pause.
    pub(crate) paused: Arc<AtomicBool>,
    busy: AtomicBool,
}

// SAFETY: the ABI lets handles and buffers be used from any thread; what may not be concurrent is the backend's duty,
// and what the host does with one is safe concurrently.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    pub(crate) fn new(party: &'static Party, instance: u64, real: Real) -> Self {
        Self {
            party,
            instance,
            real,
            finished: AtomicBool::new(false),
            done_event: AtomicU64::new(0),
            paused: Arc::default(),
            busy: AtomicBool::new(false),
        }
    }

    fn kind(&self) -> Kind {
        match self.real {
            Real::Request(_) => Kind::Request,
            Real::Responder(_) => Kind::Responder,
            Real::Buffer(..) => Kind::Buffer,
            Real::Caller(_) => Kind::Caller,
        }
    }

    /// A call that excludes others until the guard is dropped.
    pub(crate) fn turn(&self, call: &str) -> Turn<'_> {
        let mine = !self.busy.swap(true, SeqCst);
        if !mine {
            let what = format!("{call} was called while another thread was in a call for the same responder");
            report(Rule::ConcurrentCall, self.party, what);
        }
        Turn { entry: self, mine }
    }
}

pub(crate) struct Turn<'a> {
    entry: &'a Entry,
    mine: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.mine {
            self.entry.busy.store(false, SeqCst);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match &mut self.real {
            // SAFETY: the entry owns the handle, and this is its end.
            Real::Request(handle) => unsafe { (vtables::REQUEST.release)(*handle) },
            // SAFETY: as above.
            Real::Responder(handle) => unsafe { (vtables::RESPONDER.release)(*handle) },
            // SAFETY: as above.
            Real::Caller(handle) => unsafe { (bls::BLS.close)(*handle) },
            Real::Buffer(buffer, guarded) => {
                // SAFETY: the entry owns the buffer, whose memory is still there.
                if *guarded && !unsafe { memory::guard_is_whole(buffer) } {
                    let what = format!("bytes behind a buffer of {} bytes have changed", buffer.len);
                    report(Rule::WritePastBuffer, self.party, what);
                }
                if let Some(release) = buffer.release {
                    // SAFETY: called once, with the owner that came with it.
                    unsafe { release(buffer.owner, *self.done_event.get_mut()) };
                }
            }
        }
    }
}

static LIVE: OnceLock<Mutex<HashMap<usize, Arc<Entry>>>> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(1);
static INSTANCES: AtomicU64 = AtomicU64::new(1);

/// No address of a process looks like this, so following a token is a fault at once.
const MARK: usize = 1 << 62;
const PARTY_SHIFT: u32 = 48;
const PARTY_BITS: usize = (1 << 14) - 1;

fn live() -> std::sync::MutexGuard<'static, HashMap<usize, Arc<Entry>>> {
    LIVE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number for an instance.
pub(crate) fn next_instance() -> u64 {
    INSTANCES.fetch_add(1, SeqCst)
}

/// Takes something under watch; the token is what the backend gets.
pub(crate) fn add<T>(entry: Entry) -> *mut T {
    let number = NEXT.fetch_add(1, SeqCst);
    let party = (entry.party.number & PARTY_BITS) << PARTY_SHIFT;
    let token = MARK | party | (number << 4) | entry.kind() as usize;
    live().insert(token, Arc::new(entry));
    std::ptr::without_provenance_mut(token)
}

/// Whether a value can only have come from [`add`]: it is no address.
pub(crate) fn is_token<T>(value: *const T) -> bool {
    value.addr() & MARK != 0
}

/// What the token stands for; otherwise the rule that `call` breaks is reported.
pub(crate) fn find<T>(token: *const T, kind: Kind, call: &str) -> Option<Arc<Entry>> {
    let found = live().get(&token.addr()).cloned();
    match found {
        Some(entry) if entry.kind() == kind => Some(entry),
        _ => {
            complain(token.addr(), kind, call, Rule::UsedAfterRelease);
            None
        }
    }
}

/// As [`find`], and the token is dead from now on.
pub(crate) fn take<T>(token: *const T, kind: Kind, call: &str, rule: Rule) -> Option<Arc<Entry>> {
    let mut live = live();
    if live.get(&token.addr()).is_some_and(|entry| entry.kind() == kind) {
        return live.remove(&token.addr());
    }
    drop(live);
    complain(token.addr(), kind, call, rule);
    None
}

/// Says what is wrong with a token that stands for nothing, or for something else.
fn complain(token: usize, wanted: Kind, call: &str, rule: Rule) {
    let number = (token >> 4) & ((1 << (PARTY_SHIFT - 4)) - 1);
    let ours = token & MARK != 0 && number != 0 && number < NEXT.load(SeqCst);
    let Some(party) = Party::numbered(if ours { (token >> PARTY_SHIFT) & PARTY_BITS } else { 0 }) else {
        return;
    };
    let name = wanted.name();
    if token == 0 {
        report(Rule::UnknownHandle, party, format!("{call} was called with null for a {name}"));
    } else if ours && token & 0xf == wanted as usize {
        report(
            rule,
            party,
            format!("{call} was called for a {name} that was released or handed over before"),
        );
    } else {
        report(Rule::UnknownHandle, party, format!("{call} was called with something that is no {name}"));
    }
}

/// How many requests and responders an instance holds.
pub(crate) fn held_by(instance: u64) -> usize {
    let counts = |entry: &&Arc<Entry>| {
        entry.instance == instance && matches!(entry.kind(), Kind::Request | Kind::Responder)
    };
    live().values().filter(counts).count()
}
