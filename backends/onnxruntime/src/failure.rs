//! Whose fault it is that a run failed, and who is told.

use trireme_sdk::{Error, ErrorCode, Host, Request};

use crate::signature::Layout;

/// The server's log, for what a model's runs have to say.
pub(crate) struct Log {
    pub(crate) host: Host,
    pub(crate) model: String,
}

impl Log {
    /// A failure of the model is logged as an error. A client is told of its own; the log only has it for who looks for it.
    pub(crate) fn failed(&self, error: &Error) {
        let text = format!("model '{}': {}", self.model, error.message);
        match error.code {
            ErrorCode::InvalidArg => self.host.verbose(text),
            _ => self.host.error(text),
        }
    }

    /// A batch whose halves run again. If those succeed nobody is answered with this error, which may be the server's.
    pub(crate) fn divided(&self, size: usize, error: &Error) {
        if error.code == ErrorCode::Internal {
            let name = &self.model;
            self.host.error(format!(
                "model '{name}': a batch of {size} failed and is run in halves: {}",
                error.message
            ));
        }
    }
}

/// How ONNX Runtime begins what it says of an operator that could not compute.
const OPERATOR: &str = "Non-zero status code returned while running";
/// What it says where there is no memory for what an operator computes.
const NO_MEMORY: [&str; 3] = ["bad_alloc", "bad allocation", "Failed to allocate memory"];

/// The error of a run. The same model computes other inputs, so an operator that cannot compute these is the fault of who sent
/// them, unless memory ends.
pub(crate) fn of_run(error: &ort::Error, layout: &Layout, batch: &[Request]) -> Error {
    let text = error.to_string();
    match (blame(error.code(), &text), batch) {
        (ErrorCode::InvalidArg, [request]) => Error::invalid(format!(
            "ONNX Runtime: {}; the inputs were {}",
            text.trim_end(),
            shown(layout, request)
        )),
        (code, _) => Error { code, message: format!("ONNX Runtime: {text}") },
    }
}

fn blame(code: ort::ErrorCode, text: &str) -> ErrorCode {
    match code {
        ort::ErrorCode::InvalidArgument => ErrorCode::InvalidArg,
        ort::ErrorCode::NotImplemented => ErrorCode::Unsupported,
        _ if text.contains(OPERATOR) && !NO_MEMORY.iter().any(|no| text.contains(no)) => {
            ErrorCode::InvalidArg
        }
        _ => ErrorCode::Internal,
    }
}

/// Names, types and shapes of what a request has brought.
fn shown(layout: &Layout, request: &Request) -> String {
    let inputs = layout.inputs.iter().filter_map(|input| request.optional_input(&input.tensor.name));
    let texts =
        inputs.map(|input| format!("'{}' {} {:?}", input.name(), input.data_type().name(), input.shape()));
    texts.collect::<Vec<_>>().join(", ")
}

/// Runs a batch, and where that fails its halves, so that what is wrong with one item does not reach its neighbours: whose fault
/// it is cannot be told otherwise. One wrong item of n costs about 2 log2 n further runs, of 2 n items together. What the server
/// cannot do for all it cannot do for some. `again` is told why the whole batch failed, before its halves run.
pub(crate) fn divided<T>(
    batch: Vec<T>,
    run: &mut impl FnMut(Vec<T>) -> Result<(), (Vec<T>, Error)>,
    fail: &mut impl FnMut(T, Error),
    again: &mut dyn FnMut(usize, &Error),
) {
    match run(batch) {
        Ok(()) => {}
        Err((mut batch, error)) if batch.len() < 2 => {
            if let Some(item) = batch.pop() {
                fail(item, error);
            }
        }
        Err((batch, error)) if error.code == ErrorCode::Unsupported => {
            batch.into_iter().for_each(|item| fail(item, error.clone()));
        }
        Err((mut front, error)) => {
            again(front.len(), &error);
            let back = front.split_off(front.len() / 2);
            divided(front, run, fail, &mut |_, _| {});
            divided(back, run, fail, &mut |_, _| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many runs it takes, and what failed, if `wrong` of `count` items are.
    fn runs(count: u32, wrong: &[u32]) -> (u32, Vec<u32>) {
        let (mut runs, mut done, mut failed) = (0, Vec::new(), Vec::new());
        let mut run = |batch: Vec<u32>| {
            runs += 1;
            if batch.iter().any(|item| wrong.contains(item)) {
                return Err((batch, Error::invalid("wrong")));
            }
            done.extend(batch);
            Ok(())
        };
        let mut told = Vec::new();
        divided((0..count).collect(), &mut run, &mut |item, _| failed.push(item), &mut |size, _| {
            told.push(size);
        });
        // Once, and only where halves ran.
        assert_eq!(told, if runs > 1 { vec![count as usize] } else { vec![] });
        done.extend(&failed);
        done.sort_unstable();
        assert_eq!(done, (0..count).collect::<Vec<_>>());
        (runs, failed)
    }

    #[test]
    fn one_wrong_item_is_found_in_few_runs() {
        assert_eq!(runs(64, &[]), (1, vec![]));
        assert_eq!(runs(64, &[17]), (13, vec![17]));
        assert_eq!(runs(6, &[2]), (7, vec![2]));
        assert_eq!(runs(1, &[0]), (1, vec![0]));
        assert_eq!(runs(0, &[]), (1, vec![]));
        assert_eq!(runs(4, &[0, 1, 2, 3]), (7, vec![0, 1, 2, 3]));
    }

    #[test]
    fn what_is_unsupported_is_not_tried_in_halves() {
        let (mut runs, mut failed) = (0, Vec::new());
        let mut run = |batch: Vec<u32>| {
            runs += 1;
            Err((batch, Error::unsupported("no kernel")))
        };
        let mut fail = |item, error: Error| failed.push((item, error.code));
        divided(vec![0, 1, 2, 3], &mut run, &mut fail, &mut |_, _| unreachable!());
        assert_eq!(failed, [0, 1, 2, 3].map(|item| (item, ErrorCode::Unsupported)));
        assert_eq!(runs, 1);
    }

    #[test]
    fn operators_are_stopped_by_what_they_are_given_or_by_the_end_of_memory() {
        use ort::ErrorCode as Code;
        let node = |text: &str| format!("{OPERATOR} Reshape node. Name:'r' Status Message: {text}");
        for (code, text, blamed) in [
            (Code::InvalidArgument, "Got invalid dimensions".to_owned(), ErrorCode::InvalidArg),
            (Code::RuntimeException, node("cannot be reshaped"), ErrorCode::InvalidArg),
            (Code::GenericFailure, node("broadcast"), ErrorCode::InvalidArg),
            (Code::RuntimeException, node("std::bad_alloc"), ErrorCode::Internal),
            (Code::NotImplemented, node("no kernel"), ErrorCode::Unsupported),
            (Code::GenericFailure, "something else".to_owned(), ErrorCode::Internal),
        ] {
            assert_eq!(blame(code, &text), blamed, "{text}");
        }
    }
}
