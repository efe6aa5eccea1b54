//! The provider: two GPUs that share two streams, one of kernels and one of copies. Work is done by the thread of its stream,
//! later than it is asked for; only events put the work of one behind that of the other.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use trireme_sdk::{DeviceDescription, DeviceProvider, Error, Gauge, Host, Place, Result};

use super::event::{Event, Events};
use super::memory::Table;

/// GPUs of this library.
pub(crate) const DEVICES: i32 = 2;

type Work = Box<dyn FnOnce() -> Result<()> + Send>;

struct Job {
    after: Vec<Arc<Event>>,
    work: Work,
    done: Arc<Event>,
}

pub(crate) struct Guarded {
    me: Weak<Self>,
    table: Arc<Mutex<Table>>,
    events: Mutex<Events>,
    /// Allocations whose bytes cannot be copied.
    broken: Mutex<HashSet<u64>>,
    kernels: Sender<Job>,
    copies: Sender<Job>,
    host: Host,
    gauges: Gauges,
}

/// What is there now, for tests.
struct Gauges {
    bytes: Gauge,
    events: Gauge,
    /// Wrong calls, as of memory that is freed twice.
    misuses: Gauge,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that does one piece of work after the other.
fn stream(name: &str) -> Result<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    let run = move || {
        for Job { after, work, done } in jobs {
            let before = after.iter().try_for_each(|event| event.wait());
            done.set(before.and_then(|()| work()));
        }
    };
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map_err(|error| Error::unavailable(format!("no thread for a stream: {error}")))?;
    Ok(sender)
}

impl Guarded {
    pub(crate) fn new(host: &Host) -> Result<Arc<Self>> {
        let (kernels, copies) = (stream("guarded-kernels")?, stream("guarded-copies")?);
        let gauge = |name: &str, help: &str| host.gauge(name, help, &[]);
        let gauges = Gauges {
            bytes: gauge("guarded_bytes", "Bytes of the devices that are allocated")?,
            events: gauge("guarded_events", "Events that somebody holds")?,
            misuses: gauge("guarded_misuses", "Calls that a driver would refuse")?,
        };
        let (table, events, broken) = (Arc::default(), Mutex::default(), Mutex::default());
        let host = host.clone();
        Ok(Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            table,
            events,
            broken,
            kernels,
            copies,
            host,
            gauges,
        }))
    }

    fn misused(&self, what: &str) {
        self.host.error(format!("misuse of the device: {what}"));
        self.gauges.misuses.add(1.0);
    }

    fn count(&self) {
        self.gauges.bytes.set(lock(&self.table).bytes() as f64);
        self.gauges.events.set(lock(&self.events).count() as f64);
    }

    fn find(&self, event: u64) -> Result<Option<Arc<Event>>> {
        if event == 0 {
            return Ok(None);
        }
        let found = lock(&self.events).find(event);
        if let Err(error) = &found {
            self.misused(&error.message);
        }
        found.map(Some)
    }

    /// Puts work into the stream; the event passes when it is done.
    fn enqueue(&self, stream: &Sender<Job>, after: &[u64], work: Work) -> Result<Arc<Event>> {
        let mut before = Vec::new();
        for event in after {
            before.extend(self.find(*event)?);
        }
        let me = Weak::clone(&self.me);
        let work = Box::new(move || {
            // As work that runs, it can only have met memory that is not there.
            work().inspect_err(|error| {
                if let Some(this) = me.upgrade() {
                    this.misused(&error.message);
                }
            })
        });
        let done = Event::mark();
        let job = Job { after: before, work, done: Arc::clone(&done) };
        stream.send(job).map_err(|_| Error::internal("the stream has ended"))?;
        Ok(done)
    }

    /// As [`Self::enqueue`]: waits for it, or gives the number of the event.
    fn run(&self, stream: &Sender<Job>, after: &[u64], waits: bool, work: Work) -> Result<u64> {
        let done = self.enqueue(stream, after, work)?;
        if waits {
            return done.wait().map(|()| 0);
        }
        let event = lock(&self.events).add(done);
        self.count();
        Ok(event)
    }

    /// Multiplies floats of the device, or of pinned memory, behind an event: a kernel. Both have `len` bytes.
    pub(crate) fn multiply(
        &self,
        to: (u64, bool),
        from: u64,
        len: usize,
        factor: f32,
        after: u64,
        delay: std::time::Duration,
    ) -> Result<u64> {
        let table = Arc::clone(&self.table);
        let kernel = move || {
            #[expect(clippy::disallowed_methods, reason = "work that takes its time")]
            std::thread::sleep(delay);
            let table = lock(&table);
            let from = table.hidden(from, len)?.cast::<f32>();
            let (address, on_device) = to;
            let to = match on_device {
                true => table.hidden(address, len)?,
                false => std::ptr::with_exposed_provenance_mut(address as usize),
            };
            let to = to.cast::<f32>();
            for at in 0..len / 4 {
                // SAFETY: the table says that the ranges are there, and they stay while it is locked; pinned memory is kept
                // by who asked until the event has passed. Nothing says that they are aligned.
                unsafe { to.add(at).write_unaligned(from.add(at).read_unaligned() * factor) };
            }
            Ok(())
        };
        self.run(&self.kernels, &[after], false, Box::new(kernel))
    }

    /// Returns when all work so far is done.
    pub(crate) fn finish(&self) {
        if let Ok(done) = self.enqueue(&self.kernels, &[], Box::new(|| Ok(()))) {
            let _ = done.wait();
        }
    }

    /// No copy is made until somebody who writes to this FIFO closes it.
    pub(crate) fn hold_copies(&self, until: PathBuf) -> Result<()> {
        let hold = move || {
            let read = std::fs::read(&until);
            read.map(drop).map_err(|error| Error::internal(format!("{}: {error}", until.display())))
        };
        self.enqueue(&self.copies, &[], Box::new(hold)).map(drop)
    }

    /// From now on the bytes of this allocation cannot be copied.
    pub(crate) fn break_memory(&self, address: u64) {
        lock(&self.broken).insert(address);
    }

    /// From now on other processes cannot open this allocation.
    pub(crate) fn withhold(&self, address: u64) {
        lock(&self.table).withhold(address);
    }

    /// Frees memory when an event has passed, at once if there is none: work that still uses it then is an illegal access.
    fn free_after(&self, done_event: u64, free: impl FnOnce(&mut Table) -> bool + Send + 'static) {
        let Some(this) = self.me.upgrade() else { return };
        let work = move || {
            if !free(&mut lock(&this.table)) {
                this.misused("memory was freed that is not there");
            }
            this.count();
            Ok(())
        };
        let freed = match done_event {
            0 => work(),
            event => self.enqueue(&self.copies, &[event], Box::new(work)).map(drop),
        };
        if let Err(error) = freed {
            self.misused(&error.message);
        }
    }
}

// SAFETY: allocations are mappings of their own, of at least the size that was asked for; a copy looks its ranges up.
unsafe impl DeviceProvider for Guarded {
    fn devices(&self) -> Vec<DeviceDescription> {
        let one = |device| DeviceDescription {
            device,
            platform: "guarded".to_owned(),
            name: format!("Guarded {device}"),
        };
        (0..DEVICES).map(one).collect()
    }

    fn allocate(&self, _device: i32, byte_size: usize) -> Result<u64> {
        let address = lock(&self.table).allocate(byte_size)?;
        self.count();
        Ok(address)
    }

    fn free(&self, _device: i32, address: u64, _byte_size: usize, done_event: u64) {
        lock(&self.broken).remove(&address);
        self.free_after(done_event, move |table| table.free(address));
    }

    fn allocate_pinned(&self, _device: i32, byte_size: usize) -> Result<u64> {
        lock(&self.table).allocate_pinned(byte_size)
    }

    fn free_pinned(&self, _device: i32, address: u64, _byte_size: usize, done_event: u64) {
        self.free_after(done_event, move |table| table.free_pinned(address));
    }

    unsafe fn copy(&self, to: Place, from: Place, after: u64, waits: bool) -> Result<u64> {
        if lock(&self.broken).contains(&from.address) {
            return Err(Error::internal("an uncorrectable error of the memory"));
        }
        let table = Arc::clone(&self.table);
        let work = move || {
            let table = lock(&table);
            let address = |place: Place| match place.device {
                Some(_) => table.hidden(place.address, place.byte_size),
                None => Ok(std::ptr::with_exposed_provenance_mut::<u8>(place.address as usize)),
            };
            let (to, from, len) = (address(to)?, address(from)?, from.byte_size);
            // SAFETY: the table says that ranges of devices are there, and keeps them while it is locked; those of the process
            // are there by the contract of this function.
            unsafe { to.copy_from_nonoverlapping(from, len) };
            Ok(())
        };
        self.run(&self.copies, &[after], waits, Box::new(work))
    }

    unsafe fn fill(&self, to: Place, value: u8, after: u64, waits: bool) -> Result<u64> {
        let table = Arc::clone(&self.table);
        let work = move || {
            let table = lock(&table);
            // SAFETY: the table says that the range is there, and keeps it while it is locked.
            unsafe { table.hidden(to.address, to.byte_size)?.write_bytes(value, to.byte_size) };
            Ok(())
        };
        self.run(&self.copies, &[after], waits, Box::new(work))
    }

    fn join(&self, _device: i32, events: &[u64]) -> Result<u64> {
        let mut all = Vec::new();
        for event in events {
            all.extend(self.find(*event)?);
        }
        let joined = lock(&self.events).add(Arc::new(Event::All(all)));
        self.count();
        Ok(joined)
    }

    fn has_passed(&self, _device: i32, event: u64) -> Result<bool> {
        self.find(event)?.map_or(Ok(true), |event| event.has_passed())
    }

    fn wait(&self, _device: i32, event: u64) -> Result<()> {
        self.find(event)?.map_or(Ok(()), |event| event.wait())
    }

    fn destroy(&self, _device: i32, event: u64) {
        if event != 0 && !lock(&self.events).remove(event) {
            self.misused(&format!("event {event} was destroyed twice"));
        }
        self.count();
    }

    fn export(&self, place: Place) -> Result<(Vec<u8>, u64)> {
        lock(&self.table).export(place.address, place.byte_size)
    }

    fn open(&self, _device: i32, handle: &[u8], byte_size: usize) -> Result<u64> {
        let address = lock(&self.table).open(handle, byte_size)?;
        self.count();
        Ok(address)
    }

    /// Waits for the copies, as a driver may.
    fn close(&self, _device: i32, address: u64, done_event: u64) {
        self.free_after(done_event, move |table| table.free(address));
        if let Ok(done) = self.enqueue(&self.copies, &[], Box::new(|| Ok(()))) {
            let _ = done.wait();
        }
    }
}
