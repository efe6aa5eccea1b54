//! Request bodies of the model repository: load, unload, index.

mod index;
mod load;
mod unload;

pub use index::decode_index;
pub use load::{LoadRequest, ModelFile};
pub use unload::UnloadRequest;

use crate::error::{ProtocolError, Result};
use crate::json::{Kind, Reader};
use crate::limits::Limits;

/// Refuses a request that names a repository: this server, as the C++ one, has them all under one roof.
///
/// # Errors
/// `Unsupported` unless the name is empty.
pub fn refuse_repository_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    Err(ProtocolError::unsupported("'repository_name' specification is not supported"))
}

/// Walks the object `parameters` of an optional JSON body; `take` reads the value of each key.
fn each_parameter(
    body: &[u8],
    limits: &Limits,
    mut take: impl FnMut(&mut Reader<'_>, &str) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::new(body, limits.json_depth)?;
    if reader.peek().is_none() {
        return Ok(());
    }
    let mut first = true;
    reader.begin_object()?;
    while let Some(key) = reader.next_key(&mut first)? {
        if key != "parameters" {
            reader.skip()?;
            continue;
        }
        let mut first = true;
        reader.begin_object().map_err(|e| e.within("'parameters'"))?;
        while let Some(key) = reader.next_key(&mut first)? {
            take(&mut reader, &key).map_err(|e| e.within(format_args!("parameter '{key}'")))?;
        }
    }
    reader.end()
}

/// What the C++ server calls the type of a JSON value.
fn type_name(reader: &mut Reader<'_>) -> Result<&'static str> {
    let mut ahead = reader.clone();
    Ok(match reader.kind()? {
        Kind::Bool => "BOOL",
        Kind::String => "STRING",
        Kind::Number if matches!(ahead.number()?, crate::json::Number::Int(_)) => "INT",
        Kind::Number => "DOUBLE",
        Kind::Object => "OBJECT",
        Kind::Array => "ARRAY",
        Kind::Null => "NULL",
    })
}
