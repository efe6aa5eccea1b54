//! Small JSON objects of calls that are not inference.

use serde_json::{Map, Value};
use trireme_protocol::Limits;

use crate::answer::Failure;

/// More than this is no setting.
const MAX_BYTES: usize = 1 << 20;

/// The object of a body; an empty body is an empty object.
///
/// # Errors
/// 400 for anything else.
pub(crate) fn object(body: &[u8], limits: &Limits) -> Result<Map<String, Value>, Failure> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let most = limits.max_body.min(MAX_BYTES);
    if body.len() > most {
        let text =
            format!("request body of {} bytes exceeds the maximum allowed value of {most} bytes", body.len());
        return Err(Failure::invalid(text));
    }
    // serde_json bounds the depth itself.
    serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(format!("failed to parse the request JSON buffer: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_an_object_is_one() {
        let limits = Limits::default();
        assert!(object(b"", &limits).unwrap().is_empty());
        assert_eq!(object(br#"{"a":1}"#, &limits).unwrap()["a"], 1);
        for broken in [b"[]".as_slice(), b"{", b"1", &vec![b' '; MAX_BYTES + 1], "[".repeat(5000).as_bytes()]
        {
            assert_eq!(object(broken, &limits).unwrap_err().status, 400);
        }
    }
}
