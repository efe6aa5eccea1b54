//! JSON in the spelling of Python's `json.dumps`: a space after `,` and `:`, letters as they are.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// What `json.dumps` may be told.
#[derive(Default)]
pub(super) struct Style {
    pub(super) indent: Option<usize>,
    /// Between items, and behind keys; of no use with an indent.
    pub(super) separators: Option<(String, String)>,
    pub(super) sort_keys: bool,
}

pub(super) fn to_string(value: &impl Serialize, style: Style) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    let mut value = serde_json::to_value(value)?;
    if style.sort_keys {
        value.sort_all_objects();
    }
    match style.indent {
        None => {
            let (item, key) = style.separators.unwrap_or_else(|| (", ".to_owned(), ": ".to_owned()));
            value.serialize(&mut Serializer::with_formatter(&mut out, Separated { item, key }))?;
        }
        Some(n) => {
            let indent = " ".repeat(n.min(16));
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
        }
    }
    String::from_utf8(out).map_err(serde::ser::Error::custom)
}

struct Separated {
    item: String,
    key: String,
}

impl Formatter for Separated {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(self.item.as_bytes()) }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(self.item.as_bytes()) }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }
}
