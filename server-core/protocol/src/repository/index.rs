//! The index request: an optional `{"ready": bool}`.

use crate::error::Result;
use crate::json::Reader;
use crate::limits::Limits;

/// Whether only models that are ready are asked for; an empty body asks for all.
///
/// # Errors
/// Broken JSON, or a `ready` that is no bool.
pub fn decode_index(body: &[u8], limits: &Limits) -> Result<bool> {
    let mut reader = Reader::new(body, limits.json_depth)?;
    let mut ready = false;
    if reader.peek().is_none() {
        return Ok(ready);
    }
    let mut first = true;
    reader.begin_object()?;
    while let Some(key) = reader.next_key(&mut first)? {
        match key.as_ref() {
            "ready" => ready = reader.bool().map_err(|e| e.within("'ready'"))?,
            _ => drop(reader.skip()?),
        }
    }
    reader.end()?;
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::decode_index;
    use crate::Limits;

    #[test]
    fn the_body_may_be_empty() {
        let decode = |text: &str| decode_index(text.as_bytes(), &Limits::default()).map_err(|e| e.message);
        assert_eq!((decode(""), decode(" {} ")), (Ok(false), Ok(false)));
        assert_eq!(decode(r#"{"x":[],"ready":true}"#), Ok(true));
        assert!(decode(r#"{"ready":1}"#).is_err_and(|e| e.starts_with("'ready': ")));
        assert!(decode("{").is_err());
    }
}
