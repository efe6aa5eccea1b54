use super::graph::Graph;

/// What is known of a tensor in a frame.
#[derive(Debug, Clone)]
pub(super) enum Slot<V> {
    /// Its step has not answered yet.
    Unknown,
    /// It will not come, or nobody reads it any more.
    Absent,
    Here {
        value: V,
        /// How many readers are still to come.
        uses: usize,
    },
}

/// One run of a stream: the request itself, or one answer of a decoupled step with all that follows from it.
#[derive(Debug)]
pub(super) struct Frame<V> {
    pub(super) stream: usize,
    /// The frame around it.
    pub(super) parent: Option<usize>,
    /// The run whose answer it is, and the number of the answer.
    pub(super) origin: Option<(usize, u64)>,
    pub(super) slots: Vec<Slot<V>>,
    /// Steps that have not been started.
    pub(super) waiting: Vec<usize>,
    pub(super) running: usize,
    pub(super) children: Vec<usize>,
    /// It is still to give an answer.
    pub(super) owes_answer: bool,
}

impl<V: Clone> Frame<V> {
    pub(super) fn new(graph: &Graph, stream: usize, needed: &[bool], owes_answer: bool) -> Self {
        let own = |step: &usize| needed[*step] && graph.runs_in(*step) == stream;
        Self {
            stream,
            parent: None,
            origin: None,
            slots: vec![Slot::Unknown; graph.stream_size(stream)],
            waiting: (0..needed.len()).filter(own).collect(),
            running: 0,
            children: Vec::new(),
            owes_answer,
        }
    }

    /// Nothing more comes of it.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.running == 0 && self.children.is_empty() && !self.owes_answer
    }
}
