//! Asks another model and answers with its answer; the fixture of `bls/1`. Parameters: `model` is asked; `mode` is
//! `then` (by callback), `wait` (keeps the instance), `each` (passes every answer on), `twice` (two at once, OUTPUT0 is
//! the sum of both). Requests may also have other models loaded and unloaded: see [`models`].
#![forbid(unsafe_code)]

mod models;

use std::sync::{Arc, Mutex, PoisonError};

use trireme_sdk::{
    Answer, Call, Caller, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response,
    Result, Stateless,
};

use crate::models::{AtEnd, Changing};

#[derive(Clone)]
struct Asking {
    model: String,
    mode: String,
    changing: Changing,
}

struct Asker {
    asking: Asking,
    changing: AtEnd,
}

impl LoadModel for Asking {
    fn load(context: ModelContext) -> Result<Self> {
        let parameter = |name: &str| context.config.parameter::<String>(name).map(Option::unwrap_or_default);
        let changing = Changing::load(&context)?;
        Ok(Self { model: parameter("model")?, mode: parameter("mode")?, changing })
    }
}

impl Model for Asking {
    type Instance = Asker;
    fn create_instance(&self, _: InstanceContext) -> Result<Asker> {
        Ok(Asker { asking: self.clone(), changing: AtEnd(self.changing.clone()) })
    }
}

impl Instance for Asker {
    fn execute(&mut self, batch: Vec<Request>) {
        for request in batch {
            let Some(request) = self.changing.execute(request) else { continue };
            let call = self.asking.call(&request).and_then(|call| Ok((request.caller()?, call)));
            match call {
                Err(error) => request.fail(error),
                Ok((caller, call)) => self.asking.ask(request, &caller, call),
            }
        }
    }
}

impl Asking {
    fn call(&self, request: &Request) -> Result<Call> {
        let parameters = request.parameters().into_iter();
        let call =
            parameters.fold(Call::new(&self.model), |call, (name, value)| call.parameter(&name, value));
        request.inputs().try_fold(call, |call, input| call.forward(input.name(), request, &input))
    }

    fn ask(&self, request: Request, caller: &Caller, call: Call) {
        match self.mode.as_str() {
            "wait" => match caller.call_and_wait(call).and_then(pass) {
                Ok(response) => request.respond(response),
                Err(error) => request.fail(error),
            },
            "each" => each(request, caller, call),
            "twice" => match self.call(&request) {
                Ok(other) => twice(request, caller, [call, other]),
                Err(error) => request.fail(error),
            },
            _ => caller.call(call, |answer| match answer.and_then(pass) {
                Ok(response) => request.respond(response),
                Err(error) => request.fail(error),
            }),
        }
    }
}

/// All outputs under their own names, not copied.
fn pass(mut answer: Answer) -> Result<Response> {
    let names: Vec<String> = answer.names().map(str::to_owned).collect();
    names.iter().try_fold(Response::new(), |response, name| answer.move_into(name, response, name))
}

fn each(request: Request, caller: &Caller, call: Call) {
    let mut responder = Some(request.into_responder());
    caller.call_each(call, move |answer, is_final| {
        match answer.and_then(|answer| Ok((answer.is_empty(), pass(answer)?))) {
            Ok((true, _)) => {}
            Ok((false, response)) => {
                responder.as_mut().map(|responder| responder.send(response));
            }
            Err(error) => return responder.take().into_iter().for_each(|one| one.fail(error.clone())),
        }
        if is_final {
            responder.take().into_iter().for_each(trireme_sdk::Responder::close);
        }
    });
}

fn twice(request: Request, caller: &Caller, calls: [Call; 2]) {
    let state = Arc::new(Mutex::new((Some(request), Vec::<Vec<f32>>::new())));
    for call in calls {
        let state = Arc::clone(&state);
        caller.call(call, move |answer| {
            let values = answer.and_then(|answer| {
                let shape = answer.shape("OUTPUT0")?.to_vec();
                Ok((answer.values::<f32>("OUTPUT0")?.into_owned(), shape))
            });
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (request, known) = &mut *state;
            match values {
                Err(error) => request.take().into_iter().for_each(|request| request.fail(error.clone())),
                Ok((values, shape)) => {
                    let Some(first) = known.pop() else { return known.push(values) };
                    let sum = first.iter().zip(&values).map(|(one, two)| one + two).collect();
                    if let Some(request) = request.take() {
                        request.answer(|_| Response::new().tensor("OUTPUT0", &shape, sum));
                    }
                }
            }
        });
    }
}

trireme_sdk::export_backend!(Stateless<Asking>, name = "caller");
