/// One step of a [`Graph`], its tensors by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphStep {
    /// What it needs.
    pub inputs: Vec<usize>,
    /// What it makes.
    pub outputs: Vec<usize>,
    /// Whether it may answer any number of times.
    pub decoupled: bool,
}

/// Why steps do not make a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two steps make one tensor, or a step makes an input.
    #[error("tensor {tensor} is made twice, the second time by step {step}")]
    MadeTwice {
        /// The tensor.
        tensor: usize,
        /// Who makes it again.
        step: usize,
    },
    /// A tensor that somebody needs and nobody makes.
    #[error("tensor {tensor} is made by nobody")]
    NeverMade {
        /// The tensor.
        tensor: usize,
    },
    /// A step that waits for itself.
    #[error("step {step} waits for its own outputs")]
    Cycle {
        /// One of the steps of the circle.
        step: usize,
    },
    /// Answers of two decoupled steps that cannot be told to belong together.
    #[error("answers of different decoupled steps meet")]
    StreamsMeet {
        /// Where they meet; `None` for the answer itself.
        step: Option<usize>,
    },
}

/// The request itself; the others are 1 + the place of a decoupled step among those.
pub(super) const REQUEST: usize = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    parent: usize,
    depth: usize,
}

/// The steps of an ensemble, the tensors between them, and the streams of answers that these are part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    steps: Vec<GraphStep>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    streams: Vec<Stream>,
    /// The step that makes a tensor; `None` for inputs.
    makers: Vec<Option<usize>>,
    /// The stream that a tensor belongs to, and its number there.
    places: Vec<(usize, usize)>,
    /// How many tensors a stream has.
    sizes: Vec<usize>,
    /// The stream in whose frames a step runs, and the one that its answers belong to.
    step_streams: Vec<(usize, usize)>,
}

impl Graph {
    /// A graph of `tensors` tensors, of which the request brings `inputs` and wants `outputs`.
    ///
    /// # Errors
    /// The first thing that keeps the steps from being run in some order.
    pub fn new(
        tensors: usize,
        inputs: Vec<usize>,
        outputs: Vec<usize>,
        steps: Vec<GraphStep>,
    ) -> Result<Self, GraphError> {
        let makers = makers(tensors, &inputs, &steps)?;
        let unmade = |tensor: &&usize| makers[**tensor].is_none() && !inputs.contains(tensor);
        if let Some(&tensor) = steps.iter().flat_map(|step| &step.inputs).chain(&outputs).find(unmade) {
            return Err(GraphError::NeverMade { tensor });
        }
        let mut graph = Self {
            places: vec![(REQUEST, 0); tensors],
            streams: vec![Stream { parent: REQUEST, depth: 0 }],
            step_streams: vec![(REQUEST, REQUEST); steps.len()],
            sizes: Vec::new(),
            steps,
            inputs,
            outputs,
            makers,
        };
        graph.find_streams()?;
        graph.number();
        let every: Vec<usize> = (0..graph.outputs.len()).collect();
        graph.answer_stream(&every).ok_or(GraphError::StreamsMeet { step: None })?;
        Ok(graph)
    }

    /// Gives each step its streams, in an order in which no step comes before those that it waits for.
    fn find_streams(&mut self) -> Result<(), GraphError> {
        let mut left: Vec<usize> = (0..self.steps.len()).collect();
        while !left.is_empty() {
            let waits = |step: &usize| {
                self.steps[*step]
                    .inputs
                    .iter()
                    .any(|tensor| self.makers[*tensor].is_some_and(|maker| left.contains(&maker)))
            };
            let (blocked, ready): (Vec<usize>, Vec<usize>) = left.iter().partition(|step| waits(step));
            if ready.is_empty() {
                return Err(GraphError::Cycle { step: self.in_a_circle(&blocked) });
            }
            for step in ready {
                let inputs = &self.steps[step].inputs;
                let stream = self.deepest(inputs).ok_or(GraphError::StreamsMeet { step: Some(step) })?;
                let own = if self.steps[step].decoupled {
                    self.streams.push(Stream { parent: stream, depth: self.streams[stream].depth + 1 });
                    self.streams.len() - 1
                } else {
                    stream
                };
                self.step_streams[step] = (stream, own);
                for tensor in &self.steps[step].outputs {
                    self.places[*tensor].0 = own;
                }
            }
            left = blocked;
        }
        Ok(())
    }

    /// From any blocked step against the direction of the tensors: who is met twice waits for itself.
    fn in_a_circle(&self, blocked: &[usize]) -> usize {
        let (mut seen, mut step) = (Vec::new(), blocked.first().copied().unwrap_or(0));
        while !seen.contains(&step) {
            seen.push(step);
            let before = self.steps[step].inputs.iter().filter_map(|tensor| self.makers[*tensor]);
            match before.filter(|maker| blocked.contains(maker)).min() {
                Some(maker) => step = maker,
                None => break,
            }
        }
        step
    }

    fn number(&mut self) {
        self.sizes = vec![0; self.streams.len()];
        for (stream, number) in &mut self.places {
            *number = self.sizes[*stream];
            self.sizes[*stream] += 1;
        }
    }

    /// The stream that runs inside all others of these tensors; `None` if two of them run side by side.
    fn deepest(&self, tensors: &[usize]) -> Option<usize> {
        let mut deepest = REQUEST;
        for &tensor in tensors {
            let stream = self.places[tensor].0;
            let (inner, outer) = if self.streams[stream].depth > self.streams[deepest].depth {
                (stream, deepest)
            } else {
                (deepest, stream)
            };
            if !self.encloses(outer, inner) {
                return None;
            }
            deepest = inner;
        }
        Some(deepest)
    }

    fn encloses(&self, outer: usize, inner: usize) -> bool {
        let mut stream = inner;
        while self.streams[stream].depth > self.streams[outer].depth {
            stream = self.streams[stream].parent;
        }
        stream == outer
    }

    /// The stream whose frames give an answer each, if the outputs with these numbers are wanted.
    pub(super) fn answer_stream(&self, wanted: &[usize]) -> Option<usize> {
        let tensors: Vec<usize> =
            wanted.iter().filter_map(|&output| self.outputs.get(output)).copied().collect();
        self.deepest(&tensors)
    }

    /// Which steps the outputs with these numbers need.
    pub(super) fn needed(&self, wanted: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.steps.len()];
        let mut tensors: Vec<usize> =
            wanted.iter().filter_map(|&output| self.outputs.get(output)).copied().collect();
        while let Some(tensor) = tensors.pop() {
            if let Some(maker) = self.makers[tensor]
                && !std::mem::replace(&mut needed[maker], true)
            {
                tensors.extend(&self.steps[maker].inputs);
            }
        }
        needed
    }

    /// Whether a request may have any number of answers.
    pub fn is_decoupled(&self) -> bool {
        self.streams.len() > 1
    }

    /// The steps.
    pub fn steps(&self) -> &[GraphStep] {
        &self.steps
    }

    /// The tensors that the request brings.
    pub fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// The tensors that an answer is made of.
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    pub(super) fn tensors(&self) -> usize {
        self.places.len()
    }

    /// The stream of a tensor, and its number there.
    pub(super) fn place(&self, tensor: usize) -> (usize, usize) {
        self.places[tensor]
    }

    pub(super) fn stream_size(&self, stream: usize) -> usize {
        self.sizes[stream]
    }

    /// In the frames of which stream a step runs.
    pub(super) fn runs_in(&self, step: usize) -> usize {
        self.step_streams[step].0
    }

    /// To which stream a step's answers belong.
    pub(super) fn answers_in(&self, step: usize) -> usize {
        self.step_streams[step].1
    }
}

fn makers(tensors: usize, inputs: &[usize], steps: &[GraphStep]) -> Result<Vec<Option<usize>>, GraphError> {
    let mut makers = vec![None; tensors];
    for (step, tensor) in
        steps.iter().enumerate().flat_map(|(number, step)| step.outputs.iter().map(move |&one| (number, one)))
    {
        if makers[tensor].is_some() || inputs.contains(&tensor) {
            return Err(GraphError::MadeTwice { tensor, step });
        }
        makers[tensor] = Some(step);
    }
    Ok(makers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(inputs: &[usize], outputs: &[usize], decoupled: bool) -> GraphStep {
        GraphStep { inputs: inputs.to_vec(), outputs: outputs.to_vec(), decoupled }
    }

    #[test]
    fn circles_are_found_with_a_step_that_is_in_them() {
        let steps = vec![step(&[3], &[4], false), step(&[0, 2], &[1], false), step(&[1], &[2, 3], false)];
        let error = Graph::new(5, vec![0], vec![4], steps).unwrap_err();
        assert_eq!(error, GraphError::Cycle { step: 2 });
    }

    #[test]
    fn streams_meet_only_inside_each_other() {
        let two = vec![step(&[0], &[1], true), step(&[0], &[2], true), step(&[1, 2], &[3], false)];
        assert_eq!(Graph::new(4, vec![0], vec![3], two), Err(GraphError::StreamsMeet { step: Some(2) }));
        let two = vec![step(&[0], &[1], true), step(&[0], &[2], true)];
        assert_eq!(Graph::new(3, vec![0], vec![1, 2], two), Err(GraphError::StreamsMeet { step: None }));
        let nested = vec![step(&[0], &[1], true), step(&[1], &[2], true), step(&[0, 1, 2], &[3], false)];
        let graph = Graph::new(4, vec![0], vec![1, 3], nested).unwrap();
        assert!(graph.is_decoupled());
        assert_eq!(graph.answer_stream(&[0]), Some(1));
        assert_eq!(graph.answer_stream(&[0, 1]), Some(2));
    }

    #[test]
    fn what_no_wanted_output_needs_is_left_out() {
        let steps = vec![step(&[0], &[1, 2], false), step(&[1], &[3], false), step(&[2], &[4], false)];
        let graph = Graph::new(5, vec![0], vec![3, 4, 2], steps).unwrap();
        assert_eq!(graph.needed(&[0]), [true, true, false]);
        assert_eq!(graph.needed(&[2]), [true, false, false]);
        assert_eq!(graph.needed(&[]), [false, false, false]);
    }
}
