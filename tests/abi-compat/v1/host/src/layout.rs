//! The layout check at load, in both directions.
//!
//! abi_stable asks whether an implementation has all that an interface expects, so alone it refuses a backend that is
//! older than the server, which is the usual case. A linear history makes "either is a prefix of the other" the right
//! question: so the check is made both ways, and what is missing is never read because `struct_size` says so.

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityErrors, CheckingGlobals, check_layout_compatibility_with_globals,
};
use abi_stable::type_layout::{TLFieldOrFunction, TypeLayout};
use trireme_abi::LayoutRootRef;

/// Compares the library's record with ours; the error is the innermost difference.
pub(crate) fn check(theirs: &'static TypeLayout) -> Result<(), String> {
    let ours = <LayoutRootRef as StableAbi>::LAYOUT;
    // Fresh globals each time: the shared ones remember the tables of one library and hold the next one against them.
    let compare = |a, b| check_layout_compatibility_with_globals(a, b, &CheckingGlobals::new());
    let Err(newer) = compare(ours, theirs) else { return Ok(()) };
    let Err(older) = compare(theirs, ours) else { return Ok(()) };
    // Both directions fail: the difference that is not just a missing function is the one to show.
    let of_newer = innermost(&newer, false);
    Err(of_newer.or_else(|| innermost(&older, true)).unwrap_or_else(|| "the layouts differ".to_owned()))
}

/// "type.field: expected a, found b" of the deepest error that is more than a different number of fields.
fn innermost(errors: &AbiInstabilityErrors, swapped: bool) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for error in &errors.errors {
        for instability in &error.errs {
            let what = match instability {
                AbiInstability::FieldCountMismatch(_) | AbiInstability::MismatchedPrefixSize(_) => continue,
                AbiInstability::Name(pair) => {
                    let (expected, found) = (pair.expected.to_string(), pair.found.to_string());
                    expected_found(&expected, &found, swapped)
                }
                AbiInstability::Size(pair) => expected_found(
                    &format!("{} bytes", pair.expected),
                    &format!("{} bytes", pair.found),
                    swapped,
                ),
                AbiInstability::MismatchedPrimitive(pair) => {
                    expected_found(&format!("{:?}", pair.expected), &format!("{:?}", pair.found), swapped)
                }
                AbiInstability::UnexpectedField(pair) => {
                    expected_found(pair.expected.name(), pair.found.name(), swapped)
                }
                AbiInstability::PackageVersion(pair) => expected_found(
                    &format!("ABI crate {}", pair.expected),
                    &format!("ABI crate {}", pair.found),
                    swapped,
                ),
                other => one_line(&format!("{other:?}")),
            };
            let depth = error.stack_trace.len();
            if best.as_ref().is_none_or(|(deepest, _)| depth > *deepest) {
                let path: Vec<String> = error.stack_trace.iter().map(|step| name(&step.expected)).collect();
                best = Some((depth, format!("{}: {what}", path.join("."))));
            }
        }
    }
    best.map(|(_, text)| text)
}

fn name(step: &TLFieldOrFunction) -> String {
    match step {
        TLFieldOrFunction::Field(field) => field.name().to_owned(),
        TLFieldOrFunction::Function(function) => function.name.to_string(),
    }
}

fn expected_found(expected: &str, found: &str, swapped: bool) -> String {
    let (expected, found) = if swapped { (found, expected) } else { (expected, found) };
    format!("expected {}, found {}", one_line(expected), one_line(found))
}

fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > 160 {
        let end = (0..=160).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}
