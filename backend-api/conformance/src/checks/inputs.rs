//! Whatever a request may hold.

use trireme_host::abi::DType;

use super::{Verdict, does_not_apply, pass};
use crate::case::{Ask, Case, Pieces};
use crate::compare::difference;
use crate::element::{put_text, width};
use crate::generate;
use crate::replies::Replies;
use crate::running::{Bench, Worker};

/// Sizes of free dimensions.
const SIZES: [i64; 5] = [2, 1, 5, 17, 0];

pub(super) fn shapes(bench: &Bench<'_>) -> Verdict {
    let worker = bench.start()?;
    let (mut answered, mut refused) = (0, Vec::new());
    let mut look = |bench: &Bench<'_>, worker: &Worker, case: &Case| -> Result<(), String> {
        let replies = bench.ask(worker, &Ask::new(case))?;
        let told = |what: String| format!("request '{}': {what}", case.name);
        // A model may leave out an output whose input is not there, so what is asked for comes if all inputs are.
        if case.inputs.len() == bench.config.inputs.len()
            && let Some(missing) = bench.missing(&replies)
        {
            return Err(told(missing));
        }
        match replies.answers.iter().find_map(|answer| answer.error.clone()) {
            Some((_, message)) => refused.push(told(message)),
            None => answered += 1,
        }
        Ok(())
    };
    for case in bench.cases()? {
        look(bench, &worker, &case)?;
    }
    // A model whose tokens mean something is not asked for anything: its own requests are the shapes that it knows.
    if bench.makes_requests() {
        let sizes: &[i64] = if generate::has_free_dimension(bench.config) { &SIZES } else { &[1] };
        for size in sizes {
            look(bench, &worker, &generate::request(bench.config, 1, *size, 0))?;
        }
    }
    // Optional inputs may be absent, alone and all.
    let full = bench.case()?;
    let optional = |index: u16| bench.config.inputs[usize::from(index)].optional;
    let without = |gone: &dyn Fn(u16) -> bool| {
        let inputs = full.inputs.iter().filter(|input| !gone(input.index)).cloned().collect();
        Case { name: "without optional inputs".to_owned(), inputs, ..full.clone() }
    };
    let mut absent: Vec<Case> = full
        .inputs
        .iter()
        .filter(|input| optional(input.index))
        .map(|input| without(&|index| index == input.index))
        .collect();
    if !absent.is_empty() {
        absent.push(without(&optional));
    }
    for case in absent.iter().filter(|case| !case.inputs.is_empty()) {
        let case = Case { outputs: Vec::new(), expected: Default::default(), ..case.clone() };
        bench.submit(&worker, &[Ask::new(&case)])?[0].all(bench.limit())?;
    }
    worker.end()?;
    if answered == 0 {
        return Err(format!(
            "no request was answered without an error, so nothing is known: give requests in conformance.json. {}",
            refused.first().map_or("", String::as_str)
        ));
    }
    match refused.first() {
        Some(first) => pass(format!("{answered} answered, {} refused: {first}", refused.len())),
        None => pass(format!("{answered} requests")),
    }
}

pub(super) fn dtypes(bench: &Bench<'_>) -> Verdict {
    let worker = bench.start()?;
    let case = bench.case()?;
    let all = bench.ask(&worker, &Ask::new(&case))?;
    let came = |name: &str| {
        all.answers.first().is_some_and(|answer| answer.outputs.iter().any(|output| output.name == name))
    };
    // Each output for itself: the others may be there, and are not waited for. What depends on an input that is not there
    // does not come in either case.
    for wanted in 0..bench.config.outputs.len() {
        let ask = Ask { wanted: Some(wanted), ..Ask::new(&case) };
        let replies = bench.ask(&worker, &ask)?;
        let name = &bench.config.outputs[wanted].name;
        let first = replies.answers.first().filter(|answer| answer.error.is_none());
        if let Some(answer) = first.filter(|_| !bench.config.decoupled && bench.config.outputs.len() > 1)
            && came(name)
            && !answer.outputs.iter().any(|output| output.name == *name)
        {
            return Err(format!("output '{name}' was asked for alone and did not come"));
        }
    }
    // The smallest and the largest: all bits of an element set, and none. For floats that is a NaN.
    let mut extremes = 0;
    for byte in [0x00, 0xff, 0x7f, 0x80] {
        let mut extreme = case.clone();
        extreme.name = format!("elements of bytes {byte:#04x}");
        (extreme.outputs, extreme.expected) = (Vec::new(), Default::default());
        for input in extreme.inputs.iter_mut().filter(|input| width(input.dtype).is_some()) {
            let byte = if input.dtype == DType::BOOL { byte & 1 } else { byte };
            input.data.fill(byte);
        }
        if bench.makes_requests() {
            bench.ask(&worker, &Ask::new(&extreme))?;
            extremes += 1;
        }
    }
    worker.end()?;
    let types: Vec<&str> =
        bench.config.inputs.iter().map(|input| crate::element::name_of(input.dtype)).collect();
    pass(format!("{}; {extremes} extremes", types.join(", ")))
}

pub(super) fn bytes(bench: &Bench<'_>) -> Verdict {
    let case = bench.case()?;
    let texts = |case: &Case| case.inputs.iter().any(|input| input.dtype == DType::BYTES);
    if !texts(&case) {
        return does_not_apply("no request of the model has a BYTES input");
    }
    let worker = bench.start()?;
    bench.ask(&worker, &Ask::new(&case))?;
    let long = vec![b'1'; 1 << 20];
    let kinds: [(&str, &[u8]); 6] = [
        ("empty texts", b""),
        ("bytes that are no UTF-8", &[0xff, 0xfe, 0x00, 0x80]),
        ("texts of zero bytes", &[0; 7]),
        ("texts of several bytes a letter", "zwölf 数".as_bytes()),
        ("texts of 1 MiB", &long),
        ("a text that looks like a frame", &[4, 0, 0, 0, 1, 2, 3, 4]),
    ];
    let mut refused = 0;
    for (name, text) in kinds {
        let mut odd = case.clone();
        (odd.outputs, odd.expected, odd.name) = (Vec::new(), Default::default(), name.to_owned());
        for input in odd.inputs.iter_mut().filter(|input| input.dtype == DType::BYTES) {
            let count: i64 = input.shape.iter().product();
            input.data.clear();
            (0..count).for_each(|_| put_text(text, &mut input.data));
        }
        // An error is an answer; silence, a panic and a broken frame are not.
        let replies = bench.submit(&worker, &[Ask::new(&odd)])?[0].all(bench.limit());
        let replies = replies.map_err(|what| format!("{name}: {what}"))?;
        for message in replies.answers.iter().filter_map(|answer| answer.error.as_ref()) {
            if message.1.contains("dropped the request without an answer")
                || message.1.starts_with("the backend sent ")
            {
                return Err(format!("{name}: {}", message.1));
            }
            refused += 1;
        }
    }
    worker.end()?;
    pass(format!("{} kinds of text, {refused} answered with an error", kinds.len()))
}

pub(super) fn split_inputs(bench: &Bench<'_>) -> Verdict {
    let case = bench.case()?;
    if case.inputs.iter().all(|input| input.data.len() < 2) {
        return does_not_apply("no input of the request can be cut");
    }
    let worker = bench.start()?;
    let whole = bench.ask(&worker, &Ask::new(&case))?;
    if let Some(difference) = unsteady(bench, &worker, &case, &whole)? {
        return does_not_apply(format!("the model does not answer alike twice: {difference}"));
    }
    for size in [1, 3, 7] {
        let ask = Ask { pieces: Pieces::Of(size), ..Ask::new(&case) };
        let told = |what: String| format!("in pieces of {size} bytes: {what}");
        let replies = bench.ask(&worker, &ask).map_err(told)?;
        if let Some(difference) = difference(&whole.answers, &replies.answers) {
            return Err(format!("whole and {}", told(difference)));
        }
    }
    worker.end()?;
    pass("pieces of 1, 3 and 7 bytes")
}

/// What parts two answers to the same request.
pub(super) fn unsteady(
    bench: &Bench<'_>,
    worker: &Worker,
    case: &Case,
    first: &Replies,
) -> Result<Option<String>, String> {
    let again = bench.ask(worker, &Ask::new(case))?;
    Ok(difference(&first.answers, &again.answers))
}
