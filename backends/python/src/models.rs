//! What a process wants of the server's models: to load one, to unload one, to know whether one is ready.

use trireme_sdk::{Host, ModelLoad, Models, Result};

use crate::incoming::tensor_data;
use crate::slabs::Theirs;
use crate::wire::{Cursor, Malformed, TensorHead};

/// A load that a process describes, and the number of its question.
pub(crate) fn load(body: &[u8], slabs: &mut Theirs) -> std::result::Result<(u32, ModelLoad), Malformed> {
    let (mut cursor, data) = Cursor::described(body)?;
    let (question, files) = (cursor.u32()?, cursor.u32()?);
    let (model, config) = (cursor.u32()? as usize, cursor.u32()? as usize);
    let mut load = ModelLoad::new(cursor.text(model)?);
    let config = cursor.text(config)?;
    if !config.is_empty() {
        load = load.config(config);
    }
    for _ in 0..files {
        let head = TensorHead::read(&mut cursor)?;
        load = load.file(head.name, tensor_data(slabs, &head, data)?);
    }
    Ok((question, load))
}

/// An unload: whether the steps of an ensemble go, too, and the model.
pub(crate) fn unload<'a>(cursor: &mut Cursor<'a>) -> std::result::Result<(bool, &'a str), Malformed> {
    let dependents = cursor.u8()? != 0;
    Ok((dependents, text(cursor)?))
}

/// Whether a version of a model takes requests, or any if it is 0.
pub(crate) fn is_ready(
    host: &Host,
    by: &str,
    cursor: &mut Cursor<'_>,
) -> std::result::Result<Result<bool>, Malformed> {
    let version = cursor.i64()?;
    let model = text(cursor)?;
    Ok(host.models(by).and_then(|models: Models| models.is_ready(model, Some(version))))
}

fn text<'a>(cursor: &mut Cursor<'a>) -> std::result::Result<&'a str, Malformed> {
    std::str::from_utf8(cursor.rest()).map_err(|_| Malformed)
}
