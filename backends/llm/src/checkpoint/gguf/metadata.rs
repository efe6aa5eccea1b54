//! The key-value pairs at the front of a GGUF file.

use std::collections::BTreeMap;

use super::Kind;
use super::cursor::Cursor;

/// How deep arrays of arrays may be. Files have depth 1.
const MAX_DEPTH: usize = 4;

/// Largest alignment of tensor data that is believed.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// One value. Integers keep their sign, whatever their width.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    Numbers(Vec<f64>),
    Integers(Vec<i64>),
    /// Arrays of arrays, which nothing here needs: read over.
    Other,
}

/// All pairs of a file by key.
#[derive(Debug, Default)]
pub(crate) struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    pub(super) fn read(cursor: &mut Cursor<'_>, pairs: u64) -> Result<Self, Kind> {
        // A pair is at least a key's length, a type and one byte.
        let pairs = cursor.check_count("metadata pairs", pairs, 13)?;
        let mut map = BTreeMap::new();
        for _ in 0..pairs {
            let key = cursor.string()?.to_owned();
            let ty = cursor.u32()?;
            let value = read_value(cursor, ty, 0)?;
            if map.insert(key.clone(), value).is_some() {
                return Err(Kind::Malformed(format!("the key '{key}' is there twice")));
            }
        }
        Ok(Self(map))
    }

    #[cfg(test)]
    pub(crate) fn from_pairs(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Alignment of tensor data in bytes.
    pub(super) fn alignment(&self) -> Result<usize, Kind> {
        match self.get("general.alignment") {
            None => Ok(32),
            Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= MAX_ALIGNMENT => Ok(*n as usize),
            Some(v) => Err(wrong("general.alignment", v, "a power of two")),
        }
    }

    /// # Errors
    /// The file is one of several that make a model.
    pub(crate) fn whole(&self) -> Result<(), Kind> {
        let count = |key: &str| match self.get(key) {
            Some(Value::Unsigned(n)) => *n,
            _ => 0,
        };
        match count("split.count") {
            0 | 1 => Ok(()),
            parts => {
                let number = count("split.no").saturating_add(1);
                let text = format!(
                    "it is part {number} of {parts} of a model: join them with 'llama-gguf-split --merge' of llama.cpp"
                );
                Err(Kind::NotACheckpoint(text))
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    fn require<T>(&self, key: &str, value: Option<T>) -> Result<T, Kind> {
        value.ok_or_else(|| Kind::Malformed(format!("the key '{key}' is missing")))
    }

    pub(crate) fn str(&self, key: &str) -> Result<&str, Kind> {
        self.require(key, self.optional_str(key)?)
    }

    pub(crate) fn optional_str(&self, key: &str) -> Result<Option<&str>, Kind> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(v) => Err(wrong(key, v, "a string")),
        }
    }

    pub(crate) fn optional_bool(&self, key: &str) -> Result<Option<bool>, Kind> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(v) => Err(wrong(key, v, "true or false")),
        }
    }

    /// A count that fits 31 bits.
    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>, Kind> {
        Ok(self.optional_id(key)?.map(|n| n as usize))
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize, Kind> {
        self.require(key, self.optional_size(key)?)
    }

    /// A token id.
    pub(crate) fn optional_id(&self, key: &str) -> Result<Option<u32>, Kind> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = match *value {
            Value::Unsigned(n) => i64::try_from(n).ok(),
            Value::Signed(n) => Some(n),
            _ => None,
        };
        match number.and_then(|n| i32::try_from(n).ok()).and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(wrong(key, value, "a whole number below 2^31")),
        }
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>, Kind> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(n)) => Ok(Some(*n)),
            Some(v) => Err(wrong(key, v, "a number")),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, Kind> {
        self.require(key, self.optional_number(key)?)
    }

    pub(crate) fn strings(&self, key: &str) -> Result<&[String], Kind> {
        match self.require(key, self.get(key))? {
            Value::Strings(list) => Ok(list),
            v => Err(wrong(key, v, "a list of strings")),
        }
    }

    pub(crate) fn integers(&self, key: &str) -> Result<&[i64], Kind> {
        match self.require(key, self.get(key))? {
            Value::Integers(list) => Ok(list),
            v => Err(wrong(key, v, "a list of whole numbers")),
        }
    }
}

fn wrong(key: &str, value: &Value, expected: &str) -> Kind {
    let found = match value {
        Value::Unsigned(n) => n.to_string(),
        Value::Signed(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::String(_) => "a string".into(),
        Value::Strings(_) | Value::Numbers(_) | Value::Integers(_) | Value::Other => "a list".into(),
    };
    Kind::Malformed(format!("the key '{key}' is {found}, it must be {expected}"))
}

fn read_value(cursor: &mut Cursor<'_>, ty: u32, depth: usize) -> Result<Value, Kind> {
    Ok(match ty {
        0 => Value::Unsigned(cursor.u8()?.into()),
        1 => Value::Signed(cursor.i8()?.into()),
        2 => Value::Unsigned(cursor.u16()?.into()),
        3 => Value::Signed(cursor.i16()?.into()),
        4 => Value::Unsigned(cursor.u32()?.into()),
        5 => Value::Signed(cursor.i32()?.into()),
        6 => Value::Float(cursor.f32()?.into()),
        7 => Value::Bool(cursor.u8()? != 0),
        8 => Value::String(cursor.string()?.to_owned()),
        9 => read_array(cursor, depth)?,
        10 => Value::Unsigned(cursor.u64()?),
        11 => Value::Signed(cursor.i64()?),
        12 => Value::Float(cursor.f64()?),
        other => return Err(Kind::Malformed(format!("metadata type {other} does not exist"))),
    })
}

fn read_array(cursor: &mut Cursor<'_>, depth: usize) -> Result<Value, Kind> {
    if depth == MAX_DEPTH {
        return Err(Kind::Malformed(format!("arrays are nested deeper than {MAX_DEPTH}")));
    }
    let ty = cursor.u32()?;
    let count = cursor.u64()?;
    let smallest = match ty {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10 | 11 | 12 => 8,
        9 => 12,
        other => return Err(Kind::Malformed(format!("metadata type {other} does not exist"))),
    };
    let count = cursor.check_count("array elements", count, smallest)?;
    match ty {
        8 => (0..count)
            .map(|_| cursor.string().map(str::to_owned))
            .collect::<Result<_, _>>()
            .map(Value::Strings),
        9 => {
            for _ in 0..count {
                read_array(cursor, depth + 1)?;
            }
            Ok(Value::Other)
        }
        6 | 12 => (0..count)
            .map(|_| if ty == 6 { cursor.f32().map(f64::from) } else { cursor.f64() })
            .collect::<Result<_, _>>()
            .map(Value::Numbers),
        _ => (0..count).map(|_| integer(cursor, ty)).collect::<Result<_, _>>().map(Value::Integers),
    }
}

fn integer(cursor: &mut Cursor<'_>, ty: u32) -> Result<i64, Kind> {
    match read_value(cursor, ty, 0)? {
        Value::Signed(n) => Ok(n),
        Value::Bool(b) => Ok(b.into()),
        Value::Unsigned(n) => {
            i64::try_from(n).map_err(|_| Kind::Malformed(format!("the array element {n} is over 2^63")))
        }
        _ => Err(Kind::malformed("an array mixes types")),
    }
}
