use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trireme_conformance::client::{Entrance, Live, Mailbox};

use crate::answer::Answer;
use crate::config::Config;

/// Where the answers of one request go, held against the model's configuration.
pub(crate) struct Sink {
    mailbox: Arc<Mailbox<Answer>>,
    /// What the backend did against the configuration first.
    complaint: Arc<Mutex<Option<String>>>,
}

impl Sink {
    /// The client's end and the backend's.
    pub(crate) fn new(config: Arc<Config>, capacity: usize, live: &Live) -> (Self, Entrance<Answer>) {
        let mailbox = Mailbox::new(capacity, false);
        let complaint: Arc<Mutex<Option<String>>> = Arc::default();
        let heard = Arc::clone(&complaint);
        let entrance = Entrance::new(Arc::clone(&mailbox), live, move |response, is_final| {
            let answer = Answer::new(response, is_final);
            if let Some(what) = difference(&config, &answer) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
            }
            answer
        });
        (Self { mailbox, complaint }, entrance)
    }

    /// The next answer; none after the last one. Panics when there is none in time.
    pub(crate) fn next(&self, limit: Duration) -> Option<Answer> {
        let answer = self.mailbox.next(limit).unwrap_or_else(|silence| panic!("{silence}"));
        if let Some(complaint) = &*self.complaint.lock().unwrap_or_else(PoisonError::into_inner) {
            panic!("the backend broke its model's configuration: {complaint}");
        }
        answer
    }

    pub(crate) fn unread(&self) -> usize {
        self.mailbox.unread()
    }

    pub(crate) fn cancel(&self) {
        self.mailbox.cancel();
    }
}

fn difference(config: &Config, answer: &Answer) -> Option<String> {
    answer.outputs.iter().find_map(|output| {
        match config.outputs.iter().find(|tensor| tensor.name == output.name) {
            None => Some(format!("there is no output '{}'", output.name)),
            Some(tensor) => tensor.difference(config.batches, output.data_type, &output.shape),
        }
    })
}
