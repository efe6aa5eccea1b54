//! The life of an instance: its process is started, listened to, and started again when it has ended.
//!
//! ```text
//!  Starting ──▶ Serving ──▶ (process ends) ──▶ Starting …
//!      │           │                              ▲ after a pause
//!      └── Down ───┼──────────────────────────────┘
//!                  └──▶ Stopping ──▶ Ended
//! ```

use std::io::BufReader;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use trireme_sdk::{Error, Host, Result};

use crate::incoming::{Event, Incoming};
use crate::metrics::Numbered;
use crate::outgoing::{Sender, lock};
use crate::plan::Plan;
use crate::process::{self, Process};
use crate::requests::Requests;
use crate::slabs::{self, Theirs};
use crate::wire::{self, to};

/// How long a process that could not be started is left alone; doubled up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An instance as both its threads see it.
pub(crate) struct Shared {
    pub(crate) plan: Arc<Plan>,
    /// What the process is told beside the plan: instance, kind, device.
    pub(crate) own: Value,
    pub(crate) label: String,
    pub(crate) requests: Arc<Requests>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    phase: Phase,
    process: Option<Arc<Process>>,
    /// The last batch whose execution has returned.
    done: u64,
}

enum Phase {
    Starting,
    Serving(Arc<Sender>),
    Down(Error),
    Stopping,
    Ended,
}

impl Shared {
    pub(crate) fn new(plan: Arc<Plan>, label: String, own: Value) -> Arc<Self> {
        Arc::new(Self {
            plan,
            own,
            label,
            requests: Requests::new(),
            state: Mutex::new(State { phase: Phase::Starting, process: None, done: 0 }),
            changed: Condvar::new(),
        })
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        let mut state = lock(&self.state);
        if !matches!(state.phase, Phase::Stopping) || matches!(phase, Phase::Ended) {
            state.phase = phase;
        }
        self.changed.notify_all();
    }

    fn is_stopping(&self) -> bool {
        matches!(lock(&self.state).phase, Phase::Stopping)
    }

    /// The way to the process. Waits while it is being started; an error if it cannot be.
    pub(crate) fn sender(&self) -> Result<Arc<Sender>> {
        let mut state = lock(&self.state);
        loop {
            match &state.phase {
                Phase::Serving(sender) => return Ok(Arc::clone(sender)),
                Phase::Down(error) => return Err(error.clone()),
                Phase::Stopping | Phase::Ended => return Err(Error::unavailable("the instance has ended")),
                Phase::Starting => state = self.wait(state),
            }
        }
    }

    /// Waits until `execute` has returned from a batch, or the process is gone.
    pub(crate) fn wait_done(&self, batch: u64, generation: u64) {
        let mut state = lock(&self.state);
        while state.done < batch
            && matches!(&state.phase, Phase::Serving(sender) if sender.generation == generation)
        {
            state = self.wait(state);
        }
    }

    /// Asks the process to end; ends it when that takes too long.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Ended) {
            return;
        }
        let process = state.process.clone();
        match std::mem::replace(&mut state.phase, Phase::Stopping) {
            Phase::Serving(sender) => sender.send(wire::plain(to::FINISH, &[])),
            _ => process.iter().for_each(|process| process.kill()),
        }
        self.changed.notify_all();
        let timeout = self.plan.settings.stop_timeout;
        let (mut state, result) = self
            .changed
            .wait_timeout_while(state, timeout, |state| !matches!(state.phase, Phase::Ended))
            .unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() {
            self.plan.host.warn(format_args!(
                "{}: the process takes longer than {} s to end, and is ended",
                self.label,
                timeout.as_secs()
            ));
            state.process.iter().for_each(|process| process.kill());
            while !matches!(state.phase, Phase::Ended) {
                state = self.wait(state);
            }
        }
    }
}

/// Keeps a process for the instance until it is stopped. `first` is told how the first start went.
pub(crate) fn run(shared: &Arc<Shared>, first: impl FnOnce(Result<()>)) {
    let mut first = Some(first);
    let mut pause = FIRST_PAUSE;
    for generation in 1.. {
        let ended = live(shared, generation, |result| {
            if let Some(first) = first.take() {
                first(result);
            }
        });
        let error = ended.error;
        if shared.is_stopping() {
            break;
        }
        if let Some(first) = first.take() {
            first(Err(error));
            break;
        }
        shared.plan.host.error(format_args!("{}: {}; it is started again", shared.label, error.message));
        if ended.served {
            pause = FIRST_PAUSE;
            shared.set(Phase::Starting);
        } else {
            shared.set(Phase::Down(error));
            let state = lock(&shared.state);
            let _ = shared
                .changed
                .wait_timeout_while(state, pause, |state| !matches!(state.phase, Phase::Stopping));
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Whoever comes now waits for the next start and is not told of the last one.
            shared.set(Phase::Starting);
        }
    }
    shared.set(Phase::Ended);
}

struct Ended {
    error: Error,
    /// Whether it had come so far as to serve.
    served: bool,
}

/// One process from its start to its end.
fn live(shared: &Arc<Shared>, generation: u64, started: impl FnOnce(Result<()>)) -> Ended {
    let mut served = false;
    let conversation = match open(&shared.plan, &shared.label, generation, &shared.requests) {
        Ok(conversation) => conversation,
        Err(error) => return Ended { error, served },
    };
    let Conversation { process, mut reader, mut incoming } = conversation;
    lock(&shared.state).process = Some(Arc::clone(&process));
    let setup = shared.plan.setup(false, &shared.own);
    let mut error = None;
    let mut started = Some(started);
    // Stopped while the process was being started: then nobody has seen it.
    let result = if shared.is_stopping() { Ok(()) } else { reader.greet(&setup) };
    if result.is_ok() && !shared.is_stopping() {
        let sender = Arc::clone(&incoming.sender);
        error = reader.read_all(&mut incoming, |event| match event {
            Event::Ready => {
                served = true;
                shared.requests.open(generation);
                shared.set(Phase::Serving(Arc::clone(&sender)));
                if let Some(started) = started.take() {
                    started(Ok(()));
                }
                None
            }
            Event::Done(batch) => {
                shared.requests.executed();
                lock(&shared.state).done = batch;
                shared.changed.notify_all();
                None
            }
            Event::Failed(text) => Some(Err(Error::internal(text))),
            Event::Bye => Some(Ok(())),
            Event::Config(_) | Event::Nothing => None,
        });
    }
    if error.is_some() {
        process.kill();
    }
    let (status, said) = process.reap();
    let error = error.unwrap_or_else(|| died(&shared.label, status, if served { "" } else { &said }));
    lock(&shared.state).process = None;
    if served {
        shared.set(Phase::Starting);
    }
    shared.requests.close(&Error::unavailable(format!("{}; try again", error.message)));
    Ended { error, served }
}

fn died(label: &str, status: Option<std::process::ExitStatus>, said: &str) -> Error {
    let how = process::how(status);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Error::unavailable(format!("the Python process of {label} {how}{said}"))
}

/// What a process makes of a model's configuration, as JSON.
pub(crate) fn completed(plan: &Plan) -> Result<String> {
    let label = plan.label();
    let requests = Requests::new();
    let conversation = open(plan, &label, 0, &requests)?;
    let Conversation { process, mut reader, mut incoming } = conversation;
    let greeted = reader.greet(&plan.setup(true, &json!({})));
    let mut config = None;
    let failed = greeted.err().or_else(|| {
        reader.read_all(&mut incoming, |event| match event {
            Event::Config(json) => {
                config = Some(json);
                Some(Ok(()))
            }
            Event::Failed(text) => Some(Err(Error::internal(text))),
            _ => None,
        })
    });
    let (status, said) = process.reap();
    match (config, failed) {
        (Some(config), _) => Ok(config),
        (None, Some(error)) => Err(error),
        (None, None) => Err(died(&label, status, &said)),
    }
}

/// A process and what is said to and by it.
struct Conversation {
    process: Arc<Process>,
    reader: Reader,
    incoming: Incoming,
}

fn open(plan: &Plan, label: &str, generation: u64, requests: &Arc<Requests>) -> Result<Conversation> {
    let host: &Host = &plan.host;
    let failed =
        |error: std::io::Error| Error::internal(format!("a socket for the process of {label}: {error}"));
    let (here, there) = UnixStream::pair().map_err(failed)?;
    let (files, files_there) = UnixStream::pair().map_err(failed)?;
    let theirs = Theirs::new(files.try_clone().map_err(failed)?).map_err(failed)?;
    let sender = Sender::new(generation, here.try_clone().map_err(failed)?, files);
    let hang_up = {
        let sender = Arc::clone(&sender);
        move || sender.hang_up()
    };
    let programs = (plan.interpreter.as_path(), plan.script());
    let process = Process::start((programs.0, &programs.1), there, (host, label), hang_up)?;
    let incoming = Incoming {
        host: host.clone(),
        label: label.to_owned(),
        model: plan.name.clone(),
        sender,
        requests: Arc::clone(requests),
        slabs: theirs,
        metrics: (Arc::clone(&plan.metrics), Numbered::default()),
    };
    let reader = Reader { stream: BufReader::with_capacity(64 << 10, here), files: Some(files_there) };
    Ok(Conversation { process, reader, incoming })
}

struct Reader {
    stream: BufReader<UnixStream>,
    /// The end of the process, until it has it.
    files: Option<UnixStream>,
}

impl Reader {
    /// The first frame, and with it the socket over which files are passed.
    fn greet(&mut self, setup: &Value) -> Result<()> {
        let setup = setup.to_string();
        let frame = wire::plain(to::SETUP, setup.as_bytes());
        let stream = self.stream.get_ref();
        let (head, body) = frame.split_at(wire::HEAD);
        let Some(files) = self.files.take() else { return Ok(()) };
        // An error is the end of the process, which is seen and explained when it is read from.
        if slabs::send_file(stream, head, files.as_fd()).is_ok() {
            let _ = std::io::Write::write_all(&mut &*stream, body);
        }
        Ok(())
    }

    /// Reads until `each` has a result, or the process has ended or said what makes no sense. The error, if it is one.
    fn read_all(
        &mut self,
        incoming: &mut Incoming,
        mut each: impl FnMut(Event) -> Option<Result<()>>,
    ) -> Option<Error> {
        let mut body = Vec::new();
        let wrong = |what: &str| Error::internal(format!("the Python process of the model {what}"));
        loop {
            let kind = match wire::read(&mut self.stream, &mut body) {
                Ok(Some(kind)) => kind,
                Ok(None) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => return Some(wrong(&format!("could not be read from: {error}"))),
            };
            match incoming.take(kind, &body) {
                Ok(event) => {
                    if let Some(result) = each(event) {
                        return result.err();
                    }
                }
                Err(wire::Malformed) => {
                    let _ = self.stream.get_ref().shutdown(Shutdown::Both);
                    return Some(wrong("sent what makes no sense (has it written to its own connection?)"));
                }
            }
        }
    }
}
