//! Whatever a backend sends, each request has one last answer, and the host goes on.

use crate::support::{c_library, instance, request, run, scratch};

#[test]
fn answers_that_cannot_be_are_internal_errors() {
    let library = scratch("c").join("libtrireme_liar.so");
    c_library("c_backend/liar.c", &library, &[]);
    let mut instance = instance(&library, "liar", "{}");
    let cases = [
        ("too few bytes", "output 'Y' with 3 bytes, which do not fit its shape [2]"),
        ("too many bytes", "output 'Y' with 5 bytes, which do not fit its shape [2]"),
        ("negative shape", "output 'Y' with the impossible shape [-1, -2]"),
        ("overflowing shape", "output 'Y' with the impossible shape [9223372036854775807, "),
        ("rank over the limit", "output 'Y' with 99 dimensions; at most "),
        ("rank without a shape", "output 'Y' with 1 dimensions; at most "),
        ("unknown type", "unknown data type number 99"),
        ("broken strings", "whose 4 bytes do not hold 2 elements"),
        ("pointer without memory", "null"),
        ("memory that is nowhere", "memory"),
        ("list without an address", "null pointer for a list that is not empty"),
        ("unknown parameter", "parameter 'p' of unknown kind 9"),
        ("endless list", "18446744073709551615 parameters; at most "),
        ("no answer", "without"),
    ];
    // All at once: what is wrong with one answer does not touch its neighbours.
    let mut ids: Vec<&str> = cases.iter().flat_map(|(lie, _)| ["truth", lie]).collect();
    ids.extend(["nothing at all", "answer after the last", "truth"]);
    let answers = run(&mut instance, ids.iter().map(|id| request(id, &[], Vec::new())).collect());
    for (id, answers) in ids.iter().zip(answers) {
        let [response]: [_; 1] = answers.take().try_into().unwrap_or_else(|all| panic!("{id}: {all:?}"));
        match cases.iter().find(|(lie, _)| lie == id) {
            Some((_, expected)) => {
                let message = response.error.unwrap_or_else(|| panic!("{id} was believed")).message;
                assert!(message.contains(expected), "{id}: {message}");
            }
            None => assert_eq!(response.error, None, "{id}"),
        }
    }
}
