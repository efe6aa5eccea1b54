use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use trireme_host::abi::InstanceKind;
use trireme_host::{InstanceArgs, Item, Status};

/// One call of `execute`.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The instance's number.
    pub instance: u32,
    /// How many requests it was given.
    pub requests: usize,
    /// When it began.
    pub start: Instant,
    /// When it returned.
    pub end: Instant,
}

/// The instances of a model, each on its own thread; an idle one takes the next batch.
pub(crate) struct Instances {
    queue: Option<Sender<Vec<Item>>>,
    threads: Vec<JoinHandle<()>>,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Instances {
    pub(crate) fn start(model: &Arc<trireme_host::Model>, count: u32) -> Result<Self, Status> {
        let (queue, batches) = mpsc::channel();
        let batches = Arc::new(Mutex::new(batches));
        let mut this = Self { queue: Some(queue), threads: Vec::new(), spans: Arc::default() };
        for index in 0..count {
            let (model, batches, spans) = (Arc::clone(model), Arc::clone(&batches), Arc::clone(&this.spans));
            let (ready, made) = mpsc::channel();
            this.threads.push(std::thread::spawn(move || run(&model, index, &ready, &batches, &spans)));
            made.recv().unwrap_or_else(|_| Err(Status::internal("the instance's thread has panicked")))?;
        }
        Ok(this)
    }

    pub(crate) fn submit(&self, batch: Vec<Item>) {
        let queue = self.queue.as_ref().expect("open until it is dropped");
        queue.send(batch).unwrap_or_else(|_| panic!("no instance is left"));
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Instances {
    /// Batches that were sent are still run, then the instances are drained and destroyed.
    pub(crate) fn close(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("the thread of an instance has panicked");
            }
        }
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(
    model: &Arc<trireme_host::Model>,
    index: u32,
    ready: &Sender<Result<(), Status>>,
    batches: &Mutex<Receiver<Vec<Item>>>,
    spans: &Mutex<Vec<Span>>,
) {
    let name = format!("test_{index}");
    let args = InstanceArgs { name: &name, index, kind: InstanceKind::CPU, device: 0 };
    let mut instance = match model.create_instance(&args) {
        Ok(instance) => instance,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let _ = ready.send(Ok(()));
    loop {
        // A statement of its own, so that the others may wait while this one runs.
        let next = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut batch) = next else { break };
        let (requests, start) = (batch.len(), Instant::now());
        let outcome = instance.execute(&mut batch);
        let span = Span { instance: index, requests, start, end: Instant::now() };
        spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        if outcome.is_err() {
            // As a server does: an instance that failed is replaced.
            match model.create_instance(&args) {
                Ok(fresh) => instance = fresh,
                Err(_) => return,
            }
        }
    }
    instance.drain();
}
