//! The thread of an engine: carries messages, steps and events between the logic, the executor and the receivers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::handle::{Failure, State};
use super::{Alarm, Clock, Core, Event, Flow, Meter, Request, RequestError, RequestHandle, Sink};
use crate::executor::{Executor, ExecutorError};

/// How often receivers are asked whether they still wait while nothing can run.
const LOOK: Duration = Duration::from_millis(20);

pub(super) enum Message {
    /// With the time at which it came.
    Submit(u64, Box<Request>, Box<dyn Sink>, u64),
    Cancel(u64),
    Resume(u64),
    /// To be dropped or answered when no request is left.
    Drain(Sender<()>),
    Stop,
}

pub(super) struct Driver {
    core: Core,
    executor: Box<dyn Executor>,
    clock: Clock,
    meter: Option<Meter>,
    device_lost: Option<Alarm>,
    messages: Receiver<Message>,
    inbox: Sender<Message>,
    state: Arc<Mutex<State>>,
    sinks: BTreeMap<u64, Box<dyn Sink>>,
    drains: Vec<Sender<()>>,
    /// Why nothing is computed any more.
    failed: Option<Failure>,
    stopping: bool,
    /// Whether the last turn had anything to run.
    ran: bool,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        executor: Box<dyn Executor>,
        clock: Clock,
        (meter, device_lost): (Option<Meter>, Option<Alarm>),
        messages: Receiver<Message>,
        inbox: Sender<Message>,
        state: Arc<Mutex<State>>,
    ) -> Self {
        Self {
            core,
            executor,
            clock,
            meter,
            device_lost,
            messages,
            inbox,
            state,
            sinks: BTreeMap::new(),
            drains: Vec::new(),
            failed: None,
            stopping: false,
            ran: true,
        }
    }

    pub(super) fn run(mut self) {
        while !self.stopping {
            self.read_messages();
            self.look_for_cancelled();
            if self.failed.is_none() {
                // A panic of an executor leaves it in no state to go on.
                let turn = catch_unwind(AssertUnwindSafe(|| self.turn()));
                let failure = match turn {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(Failure {
                        why: error.to_string(),
                        device_lost: matches!(error, ExecutorError::DeviceLost(_)),
                    }),
                    Err(_) => Some(Failure { why: "the executor panicked".to_owned(), device_lost: false }),
                };
                if let Some(failure) = failure {
                    if let Some(tell) = self.device_lost.as_ref().filter(|_| failure.device_lost) {
                        tell(&failure.why);
                    }
                    self.core.end_all(&RequestError::Stopped(failure.why.clone()));
                    // Told before the requests are: who asks again meets no engine that has failed.
                    self.failed = Some(failure);
                }
            }
            self.deliver();
        }
        self.core.end_all(&RequestError::Stopped("it was shut down".to_owned()));
        self.deliver();
    }

    /// Fills the executor with steps, then takes the oldest output.
    fn turn(&mut self) -> Result<(), ExecutorError> {
        let depth = self.executor.info().max_steps_in_flight.max(1);
        while self.core.steps_in_flight() < depth {
            let Some(step) = self.core.plan((self.clock)()) else { break };
            // An executor may compute here.
            self.tell();
            let id = self.executor.submit(&step)?;
            self.core.submitted(id);
        }
        self.ran = self.core.steps_in_flight() > 0;
        if let Some(id) = self.core.oldest_step() {
            let output = self.executor.wait(id)?;
            self.core.complete(output, (self.clock)());
        }
        Ok(())
    }

    /// Takes what has come; waits for it if there is nothing to do.
    fn read_messages(&mut self) {
        if self.core.is_idle() || !self.ran {
            let message = if self.core.is_idle() {
                self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.messages.recv_timeout(LOOK)
            };
            match message {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
        }
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(id, request, sink, at) => self.submit(id, *request, sink, at),
            Message::Cancel(id) => self.core.end(id, RequestError::Cancelled),
            Message::Resume(id) => self.core.pause(id, false),
            Message::Drain(done) => self.drains.push(done),
            Message::Stop => self.stopping = true,
        }
        self.deliver();
    }

    fn submit(&mut self, id: u64, request: Request, mut sink: Box<dyn Sink>, at: u64) {
        let taken = match &self.failed {
            Some(failure) => {
                let error = RequestError::Stopped(failure.why.clone());
                self.core.turned_away(&error);
                Err(error)
            }
            None => self.core.submit(id, request, at),
        };
        match taken {
            Ok(()) => {
                self.sinks.insert(id, sink);
            }
            Err(error) => {
                let handle = RequestHandle::new(id, self.inbox.clone());
                call(sink.as_mut(), &handle, Event::End(Err(error)));
            }
        }
    }

    fn look_for_cancelled(&mut self) {
        let gone = self.sinks.iter().filter(|(_, sink)| sink.is_cancelled());
        let gone: Vec<u64> = gone.map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.core.end(id, RequestError::Cancelled));
    }

    /// Tells others how things stand.
    fn tell(&self) {
        let stats = self.core.stats();
        if let Some(meter) = &self.meter {
            meter(&stats, self.core.tally());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.stats = stats;
        if state.failed.is_none() {
            state.failed.clone_from(&self.failed);
        }
    }

    /// Brings events to their receivers, and what these say back.
    fn deliver(&mut self) {
        loop {
            // Who has been answered finds the numbers as they are then.
            self.tell();
            let events = self.core.take_events();
            if events.is_empty() {
                break;
            }
            for (id, event) in events {
                let Some(sink) = self.sinks.get_mut(&id) else { continue };
                let handle = RequestHandle::new(id, self.inbox.clone());
                let over = matches!(event, Event::End(_));
                let flow = call(sink.as_mut(), &handle, event);
                match flow {
                    _ if over => drop(self.sinks.remove(&id)),
                    Flow::Continue => {}
                    Flow::Pause => self.core.pause(id, true),
                    Flow::Stop => self.core.end(id, RequestError::Cancelled),
                }
            }
        }
        if self.core.is_idle() {
            // Who asked and is gone needs no answer.
            for done in self.drains.drain(..) {
                let _ = done.send(());
            }
        }
    }
}

/// A receiver that panics listens no more.
fn call(sink: &mut dyn Sink, handle: &RequestHandle, event: Event) -> Flow {
    catch_unwind(AssertUnwindSafe(|| sink.event(handle, event))).unwrap_or(Flow::Stop)
}
