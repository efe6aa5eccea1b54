//! Memory of a provider that is taken once and lent in parts, since to take it is slow: pinned memory for copies, and
//! memory of a GPU for what backends ask the host for.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use trireme_abi::{LogLevel, MemoryKind};

use super::provider::Provider;
use super::ranges::Ranges;
use crate::memory::Foreign;
use crate::services::HostServices;

/// A piece of memory of a bounded size, taken when something is first wanted of it.
pub(super) struct Pool {
    provider: Provider,
    kind: MemoryKind,
    device: i32,
    size: usize,
    services: &'static dyn HostServices,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slab: Slab,
    /// Given back, but still read by a stream until the event has passed, which is ours.
    waiting: Vec<((usize, usize), u64)>,
}

#[derive(Default)]
enum Slab {
    #[default]
    Untaken,
    There(Foreign, Ranges),
    /// There was not so much.
    Refused,
}

/// A part of a pool. Dropped without [`Part::give_back`], it is free at once.
pub(super) struct Part {
    pool: &'static Pool,
    range: (usize, usize),
    pub(super) data: *mut c_void,
    given: bool,
}

// SAFETY: the part is lent to its holder alone, and may be used from any thread.
unsafe impl Send for Part {}
// SAFETY: as above; a shared reference only reads the address.
unsafe impl Sync for Part {}

impl Pool {
    pub(super) fn new(
        provider: Provider,
        kind: MemoryKind,
        device: i32,
        size: usize,
        services: &'static dyn HostServices,
    ) -> Self {
        Self { provider, kind, device, size, services, state: Mutex::default() }
    }

    /// Whether its memory is known to this provider.
    pub(super) fn is_of(&self, provider: Provider) -> bool {
        self.provider.is(provider)
    }

    /// A part of `len` bytes with anything in it, if there is one.
    pub(super) fn take(&'static self, len: usize) -> Option<Part> {
        if len == 0 || len > self.size {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(state.slab, Slab::Untaken) {
            state.slab = match self.provider.allocate(self.kind, self.device, self.size) {
                Ok(slab) => Slab::There(slab, Ranges::new(self.size)),
                Err(status) => {
                    let what =
                        if self.kind == MemoryKind::GPU { "memory of the GPU" } else { "pinned memory" };
                    let said = format!(
                        "there is no pool of {} bytes of {what} (GPU {}): {}",
                        self.size, self.device, status.message
                    );
                    self.services.log(LogLevel::WARN, "device", &said);
                    Slab::Refused
                }
            };
        }
        self.sweep(&mut state);
        let Slab::There(slab, ranges) = &mut state.slab else { return None };
        let range = ranges.take(len)?;
        let data = slab.wire().data.wrapping_byte_add(range.0);
        Some(Part { pool: self, range, data, given: false })
    }

    /// Frees what nobody reads any more.
    fn sweep(&self, state: &mut State) {
        let State { slab: Slab::There(_, ranges), waiting } = state else { return };
        waiting.retain(|(range, event)| {
            let passed = self.provider.has_passed(self.device, *event);
            if passed {
                self.provider.destroy(self.device, *event);
                ranges.give(*range);
            }
            !passed
        });
    }

    fn give(&self, range: (usize, usize), done_event: u64) {
        // The event is lent, so a part that waits has one of its own. If there is none to be had, the wait is here.
        let event = match done_event {
            0 => None,
            event => match self.provider.join(self.device, &[event]) {
                Ok(own) => Some(own),
                Err(_) => {
                    let _ = self.provider.wait(self.device, event);
                    None
                }
            },
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (event, &mut state.slab) {
            (Some(event), _) => state.waiting.push((range, event)),
            (None, Slab::There(_, ranges)) => ranges.give(range),
            (None, _) => {}
        }
        self.sweep(&mut state);
    }
}

impl Part {
    /// Free when the event, which is lent, has passed; 0: now.
    pub(super) fn give_back(mut self, done_event: u64) {
        self.given = true;
        self.pool.give(self.range, done_event);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.given {
            self.pool.give(self.range, 0);
        }
    }
}
