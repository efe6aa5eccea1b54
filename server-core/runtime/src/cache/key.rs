use sha2::{Digest, Sha256};
use trireme_host::{Correlation, Request, Value};

/// Names a request by all that its answer may depend on: the load of the model, the inputs with type and shape, the
/// outputs that are wanted, the parameters. A hash without known collisions: no client gets the answer of another
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

/// Of what model a request is.
pub(crate) struct KeyOf<'a> {
    pub(crate) model: &'a str,
    pub(crate) version: i64,
    /// Another load may have other weights.
    pub(crate) generation: u64,
    pub(crate) outputs: usize,
}

impl KeyOf<'_> {
    /// The key of a request.
    pub(crate) fn key(&self, request: &Request) -> Key {
        let mut hash = Hasher(Sha256::new());
        hash.text(self.model);
        hash.number(self.version.cast_unsigned());
        hash.number(self.generation);
        hash.length(request.inputs.len());
        for input in &request.inputs {
            hash.number(input.index.into());
            hash.number(input.dtype.0.into());
            hash.length(input.shape.len());
            input.shape.iter().for_each(|dim| hash.number(dim.cast_unsigned()));
            hash.length(input.buffers.iter().map(bytes::Bytes::len).sum());
            input.buffers.iter().for_each(|piece| hash.0.update(piece));
        }
        hash.length(self.outputs);
        (0..self.outputs).for_each(|output| hash.number(request.wanted.contains(output).into()));
        let mut parameters: Vec<_> = request.parameters.iter().collect();
        parameters.sort_by(|one, two| one.0.cmp(&two.0));
        hash.length(parameters.len());
        for (name, value) in parameters {
            hash.text(name);
            hash.value(value);
        }
        match &request.correlation {
            Correlation::None => hash.number(0),
            Correlation::Number(number) => {
                hash.number(1);
                hash.number(*number);
            }
            Correlation::Text(text) => {
                hash.number(2);
                hash.text(text);
            }
        }
        Key(hash.0.finalize().into())
    }
}

#[cfg(test)]
impl Key {
    pub(super) fn test(number: u8) -> Self {
        Self([number; 32])
    }
}

/// Everything goes in with its length or its kind, so that no two lists of parts give the same bytes.
struct Hasher(Sha256);

impl Hasher {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.update(text);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => {
                self.number(0);
                self.number((*value).into());
            }
            Value::Int(value) => {
                self.number(1);
                self.number(value.cast_unsigned());
            }
            Value::Double(value) => {
                self.number(2);
                self.number(value.to_bits());
            }
            Value::String(value) => {
                self.number(3);
                self.text(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;
    use trireme_host::abi::DType;
    use trireme_host::{Input, OutputSet};

    fn request() -> Request {
        let input = |index| Input {
            index,
            dtype: DType(8),
            shape: smallvec![1, 4],
            buffers: smallvec![bytes::Bytes::from_static(&[1; 16])],
        };
        Request {
            id: "a".to_owned(),
            inputs: smallvec![input(0), input(1)],
            parameters: vec![("x".to_owned(), Value::Int(1)), ("y".to_owned(), Value::Bool(true))],
            wanted: OutputSet::all(2),
            batch_size: 1,
            priority: 0,
            deadline_ns: 0,
            document: None,
            correlation: Correlation::None,
            trace_parent: String::new(),
            names: ["A".into(), "B".into()].into(),
        }
    }

    const OF: KeyOf<'_> = KeyOf { model: "m", version: 1, generation: 7, outputs: 2 };

    #[test]
    fn only_what_cannot_change_the_answer_is_left_out() {
        let base = OF.key(&request());
        let with = |change: fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            OF.key(&request)
        };
        let same: [fn(&mut Request); 4] = [
            |r| r.id = "b".to_owned(),
            |r| (r.priority, r.deadline_ns) = (3, 9),
            |r| r.parameters.reverse(),
            |r| {
                r.inputs[0].buffers =
                    smallvec![bytes::Bytes::from_static(&[1; 7]), bytes::Bytes::from_static(&[1; 9])]
            },
        ];
        for change in same {
            assert_eq!(with(change), base);
        }
        let other: [fn(&mut Request); 9] = [
            |r| r.inputs[0].shape = smallvec![2, 2],
            |r| r.inputs[0].dtype = DType(11),
            |r| r.inputs[0].buffers = smallvec![bytes::Bytes::from_static(&[2; 16])],
            |r| drop(r.inputs.pop()),
            |r| r.inputs.swap(0, 1),
            |r| r.wanted = OutputSet::none(2),
            |r| r.parameters[0].1 = Value::Double(1.0),
            |r| drop(r.parameters.pop()),
            |r| r.correlation = Correlation::Number(0),
        ];
        let keys: Vec<Key> = other.into_iter().map(with).collect();
        assert!(keys.iter().all(|key| *key != base));
        assert_ne!(KeyOf { generation: 8, ..OF }.key(&request()), base);
        assert_ne!(KeyOf { model: "n", ..OF }.key(&request()), base);
    }
}
