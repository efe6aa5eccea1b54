//! The response cache: a request that was answered before gets the same answer without being computed.

mod key;
mod lru;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use smallvec::SmallVec;
use trireme_host::{Output, Response, Value};

pub(crate) use key::{Key, KeyOf};
use lru::Lru;

use crate::statistics::lock;

/// What an entry takes beside its bytes: the key, the links, the allocations.
const OVERHEAD: usize = 256;

/// Answers by what was asked, as many as fit.
pub(crate) struct ResponseCache {
    entries: Mutex<Lru<Key, Arc<Entry>>>,
}

/// An answer in memory of its own.
struct Entry {
    outputs: Vec<Output>,
    parameters: Vec<(String, Value)>,
}

impl ResponseCache {
    /// A cache that holds at most `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::new(Lru::new(bytes)) })
    }

    /// The answer to a request, if it is known. Its bytes are shared.
    pub(crate) fn get(&self, key: &Key) -> Option<Response> {
        let entry = Arc::clone(lock(&self.entries).get(key)?);
        let outputs = entry.outputs.iter().map(share).collect();
        Some(Response { outputs, parameters: entry.parameters.clone(), error: None, document: None })
    }

    /// Keeps an answer. One that is larger than the whole cache is not kept.
    pub(crate) fn insert(&self, key: Key, response: &Response) {
        let data: usize =
            response.outputs.iter().map(|output| output.data.len() + output.name.len() + OVERHEAD).sum();
        let size = data + OVERHEAD * (1 + response.parameters.len());
        if size > lock(&self.entries).limit() {
            tracing::warn!("an answer of {size} bytes is larger than the response cache and is not kept");
            return;
        }
        // Copied: an entry must not keep a backend's memory, of which its tensor may be a small part.
        let copy = |output: &Output| Output { data: Bytes::copy_from_slice(&output.data), ..share(output) };
        let entry = Entry {
            outputs: response.outputs.iter().map(copy).collect(),
            parameters: response.parameters.clone(),
        };
        let gone = lock(&self.entries).insert(key, Arc::new(entry), size);
        // Freed without the lock.
        drop(gone);
    }
}

/// The same answer once more; its bytes are shared.
pub(crate) fn share_response(response: &Response) -> Response {
    let outputs = response.outputs.iter().map(share).collect();
    Response {
        outputs,
        parameters: response.parameters.clone(),
        error: response.error.clone(),
        document: None,
    }
}

fn share(output: &Output) -> Output {
    let shape: SmallVec<[i64; 6]> = output.shape.clone();
    Output { name: output.name.clone(), dtype: output.dtype, shape, data: output.data.clone(), device: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use smallvec::smallvec;

    fn response(data: Bytes) -> Response {
        let shape = smallvec![data.len() as i64];
        let output =
            Output { name: "Y".to_owned(), dtype: trireme_host::abi::DType(2), shape, data, device: None };
        Response { outputs: smallvec![output], ..Response::default() }
    }

    #[test]
    fn an_answer_is_copied_once_and_then_shared() {
        let cache = ResponseCache::new(1 << 20);
        let data = Bytes::from(vec![7; 100]);
        cache.insert(Key::test(1), &response(data.clone()));
        let (first, second) = (cache.get(&Key::test(1)).unwrap(), cache.get(&Key::test(1)).unwrap());
        assert_eq!(first.outputs[0].data, data);
        assert_ne!(first.outputs[0].data.as_ptr(), data.as_ptr());
        assert_eq!(first.outputs[0].data.as_ptr(), second.outputs[0].data.as_ptr());
        assert!(cache.get(&Key::test(2)).is_none());
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_drives_nothing_out() {
        let cache = ResponseCache::new(2000);
        cache.insert(Key::test(1), &response(Bytes::from(vec![1; 100])));
        cache.insert(Key::test(2), &response(Bytes::from(vec![1; 2000])));
        assert!(cache.get(&Key::test(1)).is_some() && cache.get(&Key::test(2)).is_none());
    }
}
