//! Which requests may share an answer: the key of a response cache.
//!
//! Two requests have the same key if and only if everything that the answer depends on is equal. What cannot
//! change an answer has no place in it: id, priority, timeout, the encoding of tensors on the wire. Requests
//! of a sequence depend on state and have no key; neither have those of a decoupled model, whose answers are
//! many.

use crate::mutant::mutant;

/// One input of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheInput<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
    /// With the batch dimension.
    pub shape: &'a [i64],
    /// Of its bytes, from a hash without known collisions: clients choose the bytes.
    pub digest: &'a [u8],
}

/// A parameter that the model sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheParameter<'a> {
    Bool(bool),
    Integer(i64),
    Double(f64),
    Text(&'a str),
}

/// What an answer depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheRequest<'a> {
    pub model: &'a str,
    pub version: u64,
    /// Another one for each load of the version, so that a reload finds nothing of before, even what the old
    /// load puts in while it drains.
    pub load: u64,
    pub inputs: &'a [CacheInput<'a>],
    /// Empty: all. The order does not matter.
    pub outputs: &'a [&'a str],
    pub parameters: &'a [(&'a str, CacheParameter<'a>)],
}

impl CacheRequest<'_> {
    /// Appends the key. The text can be parsed back, so different requests have different keys; what is kept
    /// may be a digest of it. Inputs, outputs and parameters may come in any order.
    pub fn write_key(&self, key: &mut Vec<u8>) {
        write_bytes(key, self.model.as_bytes());
        key.extend(self.version.to_le_bytes());
        if !mutant!("cache-hit-across-loads") {
            key.extend(self.load.to_le_bytes());
        }
        write_len(key, self.inputs.len());
        for input in sorted(self.inputs, |input| input.name) {
            write_bytes(key, input.name.as_bytes());
            write_bytes(key, input.datatype.as_bytes());
            if !mutant!("cache-hit-across-shapes") {
                write_len(key, input.shape.len());
                input.shape.iter().for_each(|dim| key.extend(dim.to_le_bytes()));
            }
            write_bytes(key, input.digest);
        }
        write_len(key, self.outputs.len());
        for output in sorted(self.outputs, |output| output) {
            write_bytes(key, output.as_bytes());
        }
        write_len(key, self.parameters.len());
        for (name, value) in sorted(self.parameters, |(name, _)| name) {
            write_bytes(key, name.as_bytes());
            write_parameter(key, value);
        }
    }
}

fn sorted<'a, T>(items: &'a [T], name: impl Fn(&'a T) -> &'a str) -> Vec<&'a T> {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_by_key(|item| name(item));
    sorted
}

fn write_parameter(key: &mut Vec<u8>, value: &CacheParameter<'_>) {
    match value {
        CacheParameter::Bool(value) => key.extend([0, u8::from(*value)]),
        CacheParameter::Integer(value) => {
            key.push(1);
            key.extend(value.to_le_bytes());
        }
        CacheParameter::Double(value) => {
            key.push(2);
            key.extend(value.to_bits().to_le_bytes());
        }
        CacheParameter::Text(value) => {
            key.push(3);
            write_bytes(key, value.as_bytes());
        }
    }
}

fn write_bytes(key: &mut Vec<u8>, bytes: &[u8]) {
    write_len(key, bytes.len());
    key.extend_from_slice(bytes);
}

fn write_len(key: &mut Vec<u8>, len: usize) {
    key.extend((len as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::{CacheInput, CacheParameter, CacheRequest};

    const INPUT: CacheInput<'_> = CacheInput { name: "a", datatype: "INT32", shape: &[1, 4], digest: b"x" };
    const REQUEST: CacheRequest<'_> =
        CacheRequest { model: "m", version: 1, load: 7, inputs: &[INPUT], outputs: &["o"], parameters: &[] };

    fn key(request: &CacheRequest<'_>) -> Vec<u8> {
        let mut key = Vec::new();
        request.write_key(&mut key);
        key
    }

    #[test]
    fn everything_that_the_answer_depends_on_is_in_the_key() {
        let with = |input| key(&CacheRequest { inputs: &[input], ..REQUEST });
        let parameter = |value| key(&CacheRequest { parameters: &[("p", value)], ..REQUEST });
        let keys = [
            key(&REQUEST),
            key(&CacheRequest { model: "n", ..REQUEST }),
            key(&CacheRequest { version: 2, ..REQUEST }),
            key(&CacheRequest { load: 8, ..REQUEST }),
            key(&CacheRequest { inputs: &[], ..REQUEST }),
            key(&CacheRequest { inputs: &[INPUT, INPUT], ..REQUEST }),
            key(&CacheRequest { outputs: &[], ..REQUEST }),
            key(&CacheRequest { outputs: &["o", "q"], ..REQUEST }),
            with(CacheInput { name: "b", ..INPUT }),
            with(CacheInput { datatype: "INT64", ..INPUT }),
            with(CacheInput { shape: &[4, 1], ..INPUT }),
            with(CacheInput { shape: &[4], ..INPUT }),
            with(CacheInput { digest: b"y", ..INPUT }),
            parameter(CacheParameter::Bool(true)),
            parameter(CacheParameter::Integer(1)),
            parameter(CacheParameter::Double(1.0)),
            parameter(CacheParameter::Text("1")),
        ];
        for (n, one) in keys.iter().enumerate() {
            assert!(keys[..n].iter().all(|other| other != one), "key {n} is another's");
        }
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        let (ab, c) = (key(&CacheRequest { outputs: &["ab", "c"], ..REQUEST }), ["a", "bc"]);
        assert_ne!(ab, key(&CacheRequest { outputs: &c, ..REQUEST }));
    }

    #[test]
    fn the_order_does_not_matter() {
        let other = CacheInput { name: "b", ..INPUT };
        let one = CacheRequest { inputs: &[INPUT, other], outputs: &["o", "p"], ..REQUEST };
        let two = CacheRequest { inputs: &[other, INPUT], outputs: &["p", "o"], ..REQUEST };
        assert_eq!(key(&one), key(&two));
    }
}
