use sha2::{Digest, Sha256};
use trireme_host::{Correlation, Request, Value};
use trireme_scheduling::{CacheInput, CacheParameter, CacheRequest};

/// Names a request by all that its answer may depend on, which is [`CacheRequest`]'s to say: this is the SHA-256 of it.
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
        let inputs: Vec<_> = request
            .inputs
            .iter()
            .map(|input| CacheInput {
                index: input.index,
                datatype: input.dtype.0,
                shape: &input.shape,
                pieces: &input.buffers,
            })
            .collect();
        let outputs: Vec<usize> =
            (0..self.outputs).filter(|output| request.wanted.contains(*output)).collect();
        let parameters: Vec<_> =
            request.parameters.iter().map(|(name, value)| (name.as_str(), parameter(value))).collect();
        let request = CacheRequest {
            model: self.model,
            version: self.version,
            load: self.generation,
            inputs: &inputs,
            outputs: &outputs,
            parameters: &parameters,
            correlation: match &request.correlation {
                Correlation::None => None,
                Correlation::Number(number) => Some(CacheParameter::Integer(number.cast_signed())),
                Correlation::Text(text) => Some(CacheParameter::Text(text)),
            },
        };
        let mut hash = Sha256::new();
        request.write_key(|bytes| hash.update(bytes));
        Key(hash.finalize().into())
    }
}

fn parameter(value: &Value) -> CacheParameter<'_> {
    match value {
        Value::Bool(value) => CacheParameter::Bool(*value),
        Value::Int(value) => CacheParameter::Integer(*value),
        Value::Double(value) => CacheParameter::Double(*value),
        Value::String(value) => CacheParameter::Text(value),
    }
}

#[cfg(test)]
impl Key {
    pub(super) fn test(number: u8) -> Self {
        Self([number; 32])
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
            device: None,
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
        let same: [fn(&mut Request); 5] = [
            |r| r.id = "b".to_owned(),
            |r| (r.priority, r.deadline_ns) = (3, 9),
            |r| r.parameters.reverse(),
            |r| r.inputs.reverse(),
            |r| {
                r.inputs[0].buffers =
                    smallvec![bytes::Bytes::from_static(&[1; 7]), bytes::Bytes::from_static(&[1; 9])]
            },
        ];
        for change in same {
            assert_eq!(with(change), base);
        }
        let other: [fn(&mut Request); 8] = [
            |r| r.inputs[0].shape = smallvec![2, 2],
            |r| r.inputs[0].dtype = DType(11),
            |r| r.inputs[0].buffers = smallvec![bytes::Bytes::from_static(&[2; 16])],
            |r| drop(r.inputs.pop()),
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
