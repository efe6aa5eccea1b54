//! What stands between models in a pipeline. Parameter `operation`: `clean` (a text in lower case with single spaces) or
//! `dot` (the scalar product of two vectors; of vectors of length one the cosine).
#![forbid(unsafe_code)]

use trireme_sdk::{
    Error, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless,
};

#[derive(Clone, Copy)]
enum Operation {
    Clean,
    Dot,
}

struct Glue {
    operation: Operation,
    output: String,
}

impl LoadModel for Glue {
    fn load(context: ModelContext) -> Result<Self> {
        let operation = match context.config.parameter::<String>("operation")?.as_deref() {
            Some("clean") => Operation::Clean,
            Some("dot") => Operation::Dot,
            other => return Err(Error::invalid(format!("operation is {other:?}; known are clean and dot"))),
        };
        let [output] = <[_; 1]>::try_from(context.config.outputs()?)
            .map_err(|_| Error::invalid("glue needs exactly one output"))?;
        Ok(Self { operation, output: output.name })
    }
}

impl Model for Glue {
    type Instance = Glue;
    fn create_instance(&self, _: InstanceContext) -> Result<Glue> {
        Ok(Glue { operation: self.operation, output: self.output.clone() })
    }
}

impl Instance for Glue {
    fn execute(&mut self, batch: Vec<Request>) {
        for request in batch {
            request.answer(|request| match self.operation {
                Operation::Clean => self.clean(request),
                Operation::Dot => self.dot(request),
            });
        }
    }
}

impl Glue {
    fn clean(&self, request: &Request) -> Result<Response> {
        let input = request.inputs().next().ok_or_else(|| Error::invalid("clean needs an input"))?;
        let clean = |text: String| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        let texts: Vec<String> = input.texts()?.into_iter().map(clean).collect();
        Response::new().bytes(&self.output, input.shape(), &texts)
    }

    /// Row by row; a row is the last dimension.
    fn dot(&self, request: &Request) -> Result<Response> {
        let mut inputs = request.inputs();
        let (Some(a), Some(b)) = (inputs.next(), inputs.next()) else {
            return Err(Error::invalid("dot needs two inputs"));
        };
        if a.shape() != b.shape() {
            return Err(Error::invalid(format!("the shapes {:?} and {:?} differ", a.shape(), b.shape())));
        }
        let width = usize::try_from(a.shape().last().copied().unwrap_or(1)).unwrap_or(1).max(1);
        let (x, y) = (a.values::<f32>()?, b.values::<f32>()?);
        let rows = x.chunks(width).zip(y.chunks(width));
        let products = rows.map(|(x, y)| x.iter().zip(y).map(|(x, y)| x * y).sum()).collect::<Vec<f32>>();
        let shape = [&a.shape()[..a.shape().len().saturating_sub(1)], &[1]].concat();
        Response::new().tensor(&self.output, &shape, products)
    }
}

trireme_sdk::export_backend!(Stateless<Glue>, name = "glue");
