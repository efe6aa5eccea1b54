//! Instances on threads of their own, as a server has them, with every wait bounded.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use trireme_host::abi::InstanceKind;
use trireme_host::{InstanceArgs, Item, Model, ModelArgs, Responder};

use crate::case::{Ask, Case};
use crate::client::Live;
use crate::config::Config;
use crate::generate;
use crate::replies::{Pending, Replies, client};
use crate::subject::Subject;

/// How long a backend may take after `drain` until its last thread has let go.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// What a check works with.
pub(crate) struct Bench<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) config: &'a Config,
    pub(crate) live: Live,
    /// Whether the backend answered an ordinary request with an error.
    pub(crate) errors: Mutex<Vec<String>>,
}

enum Command {
    Run(Vec<Item>, Sender<Result<(), String>>),
    Drain(Sender<Result<(), String>>),
}

/// An instance on its thread.
pub(crate) struct Worker {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    limit: Duration,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(subject: &'a Subject, config: &'a Config) -> Self {
        Self { subject, config, live: Live::default(), errors: Mutex::default() }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.subject.limit()
    }

    pub(crate) fn load(&self) -> Result<Arc<Model>, String> {
        self.load_as(&self.config.name)
    }

    pub(crate) fn load_as(&self, name: &str) -> Result<Arc<Model>, String> {
        let version_dir = self.subject.version_dir();
        let args = ModelArgs {
            name,
            version: self.subject.version,
            model_dir: &self.subject.directory,
            version_dir: &version_dir,
            config_json: &self.config.json,
        };
        self.subject.backend.load(&args).map_err(|status| format!("load failed: {status}"))
    }

    /// An instance of a model that is loaded for it.
    pub(crate) fn start(&self) -> Result<Worker, String> {
        self.worker(&self.load()?, 0)
    }

    pub(crate) fn worker(&self, model: &Arc<Model>, index: u32) -> Result<Worker, String> {
        let info = self.subject.library.info();
        let own = if info.cpu { InstanceKind::CPU } else { InstanceKind::GPU };
        let kind = self.config.kind.unwrap_or(own);
        Worker::start(Arc::clone(model), index, kind, self.limit())
    }

    /// Sends asks as one batch; each is a client of its own.
    pub(crate) fn submit(&self, worker: &Worker, asks: &[Ask<'_>]) -> Result<Vec<Pending>, String> {
        let (items, pending): (Vec<Item>, Vec<Pending>) = asks
            .iter()
            .map(|ask| {
                let (sink, pending) = client(ask.capacity, ask.cancelled, &self.live);
                let request = Box::new(ask.request(self.config, &self.live));
                (Item { request, responder: Responder::new(sink) }, pending)
            })
            .unzip();
        worker.run(items)?;
        Ok(pending)
    }

    /// Runs one batch to its end and holds the answers against the rules.
    pub(crate) fn run(&self, worker: &Worker, asks: &[Ask<'_>]) -> Result<Vec<Replies>, String> {
        let pending = self.submit(worker, asks)?;
        let mut all = Vec::new();
        for (ask, pending) in asks.iter().zip(&pending) {
            let told = |what: String| format!("request '{}': {what}", ask.case.name);
            let replies = pending.all(self.limit()).map_err(told)?;
            self.judge(ask, &replies).map_err(told)?;
            all.push(replies);
        }
        Ok(all)
    }

    pub(crate) fn ask(&self, worker: &Worker, ask: &Ask<'_>) -> Result<Replies, String> {
        self.run(worker, std::slice::from_ref(ask))?.pop().ok_or_else(|| "no replies".to_owned())
    }

    /// Requests that the model is expected to answer without an error: those of `conformance.json`, otherwise made up.
    pub(crate) fn cases(&self) -> Result<Vec<Case>, String> {
        let declared = &self.subject.declared.requests;
        let good = declared.iter().filter(|request| request.error.is_none());
        let cases: Vec<Case> =
            good.map(|request| Case::declared(request, self.config)).collect::<Result<_, _>>()?;
        Ok(if cases.is_empty() { vec![generate::request(self.config, 1, 2, 1)] } else { cases })
    }

    pub(crate) fn case(&self) -> Result<Case, String> {
        self.cases()?.into_iter().next().ok_or_else(|| "no request to send".to_owned())
    }

    /// Whether the requests are the kit's own.
    pub(crate) fn makes_requests(&self) -> bool {
        self.subject.declared.requests.iter().all(|request| request.error.is_some())
    }

    /// Notes that a request of the kit was answered with an error; not a fault as such.
    pub(crate) fn note_error(&self, text: String) {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}

impl Worker {
    fn start(model: Arc<Model>, index: u32, kind: InstanceKind, limit: Duration) -> Result<Self, String> {
        let (commands, inbox) = mpsc::channel();
        let (ready, made) = mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("instance-{index}")).spawn(move || {
            let name = format!("conformance_{index}");
            let args = InstanceArgs { name: &name, index, kind, device: 0 };
            let mut instance = match model.create_instance(&args) {
                Ok(instance) => instance,
                Err(status) => return drop(ready.send(Err(format!("create_instance failed: {status}")))),
            };
            let _ = ready.send(Ok(()));
            for command in inbox {
                match command {
                    Command::Run(mut batch, done) => {
                        let outcome = instance.execute(&mut batch);
                        if outcome.is_err() {
                            // As a server does: an instance that failed is replaced.
                            match model.create_instance(&args) {
                                Ok(fresh) => instance = fresh,
                                Err(status) => {
                                    let _ = done.send(Err(format!(
                                        "execute failed, and so did the next instance: {status}"
                                    )));
                                    return;
                                }
                            }
                        }
                        let _ = done.send(outcome.map_err(|status| format!("execute failed: {status}")));
                    }
                    Command::Drain(done) => {
                        instance.drain();
                        let _ = done.send(Ok(()));
                    }
                }
            }
        });
        let thread = thread.map_err(|error| format!("no thread for an instance: {error}"))?;
        let worker = Self { commands: Some(commands), thread: Some(thread), limit };
        worker.wait(&made, "create_instance")?;
        Ok(worker)
    }

    fn wait(&self, outcome: &mpsc::Receiver<Result<(), String>>, call: &str) -> Result<(), String> {
        match outcome.recv_timeout(self.limit) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(format!("{call} did not return within {:?}", self.limit)),
            Err(RecvTimeoutError::Disconnected) => Err(format!("{call} ended the thread of the instance")),
        }
    }

    fn tell(&self, command: Command) -> Result<(), String> {
        let commands = self.commands.as_ref().ok_or("the instance has ended")?;
        commands.send(command).map_err(|_| "the thread of the instance has ended".to_owned())
    }

    /// Calls `execute` and waits until it returns.
    pub(crate) fn run(&self, batch: Vec<Item>) -> Result<(), String> {
        let (done, outcome) = mpsc::channel();
        self.tell(Command::Run(batch, done))?;
        self.wait(&outcome, "execute")
    }

    pub(crate) fn drain(&self) -> Result<(), String> {
        let (done, outcome) = mpsc::channel();
        self.tell(Command::Drain(done))?;
        self.wait(&outcome, "drain")
    }

    /// Drains and destroys the instance.
    pub(crate) fn end(mut self) -> Result<(), String> {
        self.drain()?;
        self.destroy()
    }

    /// Destroys the instance, drained or not.
    pub(crate) fn destroy(&mut self) -> Result<(), String> {
        self.commands = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let (done, outcome) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = done.send(thread.join().map_err(|_| "the thread of the instance panicked".to_owned()));
        });
        self.wait(&outcome, "destroy")
    }
}
