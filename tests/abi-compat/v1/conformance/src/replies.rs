//! What a backend under test is asked for answers: copied out of its memory, and read one by one.

use std::sync::Arc;
use std::time::Duration;

use trireme_host::abi::DType;
use trireme_host::{Response, ResponseSink};

use crate::client::{Entrance, Live, Mailbox};

/// One answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) outputs: Vec<Output>,
    pub(crate) parameters: usize,
    pub(crate) error: Option<(u32, String)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Vec<u8>,
}

/// The client's end of a request.
pub(crate) struct Pending(Arc<Mailbox<Answer>>);

/// What came until the end.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    pub(crate) answers: Vec<Answer>,
    /// How many answers were unread at most.
    pub(crate) most: usize,
}

pub(crate) fn client(capacity: usize, cancelled: bool, live: &Live) -> (Arc<dyn ResponseSink>, Pending) {
    let mailbox = Mailbox::new(capacity, cancelled);
    let entrance = Entrance::new(Arc::clone(&mailbox), live, |response, _| Answer::of(response));
    (Arc::new(entrance), Pending(mailbox))
}

impl Answer {
    fn of(response: Response) -> Self {
        let output = |output: trireme_host::Output| Output {
            name: output.name,
            dtype: output.dtype,
            shape: output.shape.to_vec(),
            data: output.data.to_vec(),
        };
        Self {
            outputs: response.outputs.into_iter().map(output).collect(),
            parameters: response.parameters.len(),
            error: response.error.map(|error| (error.code.0, error.message)),
        }
    }
}

impl Pending {
    /// All answers; `limit` is for each.
    pub(crate) fn all(&self, limit: Duration) -> Result<Replies, String> {
        let mut answers = Vec::new();
        while let Some(answer) = self.next(limit)? {
            answers.push(answer);
        }
        Ok(Replies { answers, most: self.0.most() })
    }
}

impl std::ops::Deref for Pending {
    type Target = Mailbox<Answer>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
