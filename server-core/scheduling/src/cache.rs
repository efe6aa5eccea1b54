//! Which requests may share an answer: the key of the response cache.
//!
//! Two requests have the same key if and only if everything that the answer depends on is equal. What cannot
//! change an answer has no place in it: id, priority, timeout, the encoding of tensors on the wire, the pieces in
//! which a tensor came. Requests of a sequence depend on state and have no key; neither have those of a decoupled
//! model, whose answers are many.

use crate::mutant::mutant;

/// One input of a request. `B` is a piece of its bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct CacheInput<'a, B> {
    /// Among the inputs of the model.
    pub index: u16,
    /// The number of its data type.
    pub datatype: u32,
    /// With the batch dimension.
    pub shape: &'a [i64],
    pub pieces: &'a [B],
}

impl<B> Clone for CacheInput<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for CacheInput<'_, B> {}

/// A parameter that the model sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheParameter<'a> {
    Bool(bool),
    Integer(i64),
    Double(f64),
    Text(&'a str),
}

/// What an answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct CacheRequest<'a, B> {
    pub model: &'a str,
    pub version: i64,
    /// Another one for each load of the version, so that a reload finds nothing of before, even what the old
    /// load puts in while it drains.
    pub load: u64,
    pub inputs: &'a [CacheInput<'a, B>],
    /// The outputs that are wanted, by their number in the model; none is named twice.
    pub outputs: &'a [usize],
    pub parameters: &'a [(&'a str, CacheParameter<'a>)],
    /// The name that the request has for a sequence, a number or a text; the model sees it even if it has none.
    pub correlation: Option<CacheParameter<'a>>,
}

impl<B: AsRef<[u8]>> CacheRequest<'_, B> {
    /// Writes the key, in any number of pieces. The whole can be parsed back, so different requests have different
    /// keys; what is kept may be a digest of it, from a hash without known collisions: clients choose the bytes.
    /// Inputs, outputs and parameters may come in any order.
    pub fn write_key(&self, sink: impl FnMut(&[u8])) {
        let mut key = Key(sink);
        key.bytes(self.model.as_bytes());
        key.number(self.version.cast_unsigned());
        if !mutant!("cache-hit-across-loads") {
            key.number(self.load);
        }
        key.length(self.inputs.len());
        for input in sorted(self.inputs, |input| input.index) {
            key.number(input.index.into());
            key.number(input.datatype.into());
            if !mutant!("cache-hit-across-shapes") {
                key.length(input.shape.len());
                input.shape.iter().for_each(|dim| key.number(dim.cast_unsigned()));
            }
            key.length(input.pieces.iter().map(|piece| piece.as_ref().len()).sum());
            input.pieces.iter().for_each(|piece| (key.0)(piece.as_ref()));
        }
        key.length(self.outputs.len());
        for output in sorted(self.outputs, |output| *output) {
            key.length(*output);
        }
        key.length(self.parameters.len());
        for (name, value) in sorted(self.parameters, |(name, _)| *name) {
            key.bytes(name.as_bytes());
            key.parameter(value);
        }
        if let Some(correlation) = &self.correlation {
            key.parameter(correlation);
        }
    }
}

fn sorted<'a, T, K: Ord>(items: &'a [T], order: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_by_key(|item| order(item));
    sorted
}

/// Everything goes in with its length or its kind, so that no two lists of parts give the same bytes.
struct Key<S>(S);

impl<S: FnMut(&[u8])> Key<S> {
    fn number(&mut self, number: u64) {
        (self.0)(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        (self.0)(bytes);
    }

    fn parameter(&mut self, value: &CacheParameter<'_>) {
        match value {
            CacheParameter::Bool(value) => (self.0)(&[0, u8::from(*value)]),
            CacheParameter::Integer(value) => {
                (self.0)(&[1]);
                self.number(value.cast_unsigned());
            }
            CacheParameter::Double(value) => {
                (self.0)(&[2]);
                self.number(value.to_bits());
            }
            CacheParameter::Text(value) => {
                (self.0)(&[3]);
                self.bytes(value.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheInput, CacheParameter, CacheRequest};

    type Input<'a> = CacheInput<'a, &'a [u8]>;
    type Request<'a> = CacheRequest<'a, &'a [u8]>;

    const INPUT: Input<'_> = CacheInput { index: 0, datatype: 8, shape: &[1, 4], pieces: &[b"xyz"] };
    const REQUEST: Request<'_> = CacheRequest {
        model: "m",
        version: 1,
        load: 7,
        inputs: &[INPUT],
        outputs: &[0],
        parameters: &[],
        correlation: None,
    };

    fn key(request: &Request<'_>) -> Vec<u8> {
        let mut key = Vec::new();
        request.write_key(|bytes| key.extend_from_slice(bytes));
        key
    }

    #[test]
    fn everything_that_the_answer_depends_on_is_in_the_key() {
        let with = |input| key(&CacheRequest { inputs: &[input], ..REQUEST });
        let parameter = |value| key(&CacheRequest { parameters: &[("p", value)], ..REQUEST });
        let correlation = |value| key(&CacheRequest { correlation: Some(value), ..REQUEST });
        let keys = [
            key(&REQUEST),
            key(&CacheRequest { model: "n", ..REQUEST }),
            key(&CacheRequest { version: 2, ..REQUEST }),
            key(&CacheRequest { load: 8, ..REQUEST }),
            key(&CacheRequest { inputs: &[], ..REQUEST }),
            key(&CacheRequest { inputs: &[INPUT, INPUT], ..REQUEST }),
            key(&CacheRequest { outputs: &[], ..REQUEST }),
            key(&CacheRequest { outputs: &[0, 1], ..REQUEST }),
            with(CacheInput { index: 1, ..INPUT }),
            with(CacheInput { datatype: 9, ..INPUT }),
            with(CacheInput { shape: &[4, 1], ..INPUT }),
            with(CacheInput { shape: &[4], ..INPUT }),
            with(CacheInput { pieces: &[b"xyw"], ..INPUT }),
            with(CacheInput { pieces: &[], ..INPUT }),
            parameter(CacheParameter::Bool(true)),
            parameter(CacheParameter::Integer(1)),
            parameter(CacheParameter::Double(1.0)),
            parameter(CacheParameter::Text("1")),
            correlation(CacheParameter::Integer(1)),
            correlation(CacheParameter::Text("1")),
        ];
        for (n, one) in keys.iter().enumerate() {
            assert!(keys[..n].iter().all(|other| other != one), "key {n} is another's");
        }
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        fn with(parameters: &[(&str, CacheParameter<'_>)]) -> Vec<u8> {
            key(&CacheRequest { parameters, ..REQUEST })
        }
        let text = CacheParameter::Text;
        assert_ne!(with(&[("ab", text("c"))]), with(&[("a", text("bc"))]));
        assert_ne!(with(&[("a", text("")), ("b", text(""))]), with(&[("a", text("b"))]));
    }

    #[test]
    fn order_and_pieces_do_not_matter() {
        let other = CacheInput { index: 1, ..INPUT };
        let parts = CacheInput { pieces: &[b"x".as_slice(), b"", b"yz"], ..INPUT };
        let one = CacheRequest { inputs: &[INPUT, other], outputs: &[0, 1], ..REQUEST };
        let two = CacheRequest { inputs: &[other, parts], outputs: &[1, 0], ..REQUEST };
        assert_eq!(key(&one), key(&two));
    }
}
