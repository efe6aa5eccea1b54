//! Step 2: PROBABILITIES = softmax(SCORES / `temperature`), for all requests of a batch at once.
#![forbid(unsafe_code)]

use trireme_sdk::{
    DataType, Error, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result,
    Stateless,
};

/// One for each model: what its instances share.
struct Softmax {
    temperature: f32,
}

/// One for each slot of `instance_group`, on a thread of its own: here its scratch memory.
struct Worker {
    temperature: f32,
    scores: Vec<f32>,
}

impl LoadModel for Softmax {
    fn load(context: ModelContext) -> Result<Self> {
        // What is wrong with a configuration is said here, while the model is loaded, and not to each client.
        let temperature = context.config.parameter("temperature")?.unwrap_or(1.0);
        if temperature <= 0.0 {
            return Err(Error::invalid(format!("temperature is {temperature}, it has to be above 0")));
        }
        for tensor in context.config.inputs()? {
            if tensor.data_type != DataType::Fp32 {
                return Err(Error::invalid(format!("input '{}' has to be TYPE_FP32", tensor.name)));
            }
        }
        Ok(Self { temperature })
    }
}

impl Model for Softmax {
    type Instance = Worker;

    fn create_instance(&self, _: InstanceContext) -> Result<Worker> {
        Ok(Worker { temperature: self.temperature, scores: Vec::new() })
    }
}

impl Instance for Worker {
    fn execute(&mut self, batch: Vec<Request>) {
        // Gather: the rows of all requests, one behind the other. One that is wrong is answered and left out.
        self.scores.clear();
        let mut parts = Vec::new();
        for request in batch {
            let start = self.scores.len();
            match self.gather(&request) {
                Ok(shape) => parts.push((request, shape, start..self.scores.len())),
                Err(error) => request.fail(error),
            }
        }
        // Compute: in the place of this loop an engine would run once.
        for (_, shape, range) in &parts {
            let width = shape.last().copied().unwrap_or(1).max(1) as usize;
            for row in self.scores[range.clone()].chunks_mut(width) {
                softmax(row, self.temperature);
            }
        }
        // Scatter: each request gets its own rows.
        for (request, shape, range) in parts {
            let rows = self.scores[range].to_vec();
            request.answer(|_| Response::new().tensor("PROBABILITIES", &shape, rows));
        }
    }
}

impl Worker {
    fn gather(&mut self, request: &Request) -> Result<Vec<i64>> {
        let input = request.input("SCORES")?;
        self.scores.extend_from_slice(&input.values::<f32>()?);
        Ok(input.shape().to_vec())
    }
}

fn softmax(row: &mut [f32], temperature: f32) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = ((*x - most) / temperature).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

trireme_sdk::export_backend!(Stateless<Softmax>, name = "softmax");
