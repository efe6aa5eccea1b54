//! Free parameters of requests and answers: a short ordered list of named values.

/// A parameter's value, as both doors can carry it.
#[derive(Clone, PartialEq, Debug)]
pub enum ParameterValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits 64 signed bits; JSON numbers land here first.
    Int64(i64),
    /// A whole number that needs the 64th bit, or one that gRPC sent as unsigned.
    Uint64(u64),
    /// A number with a fraction or an exponent.
    Double(f64),
    /// Text.
    String(String),
}

impl ParameterValue {
    /// What error texts call the value.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int64(_) => "int64",
            Self::Uint64(_) => "uint64",
            Self::Double(_) => "double",
            Self::String(_) => "string",
        }
    }

    /// The value as an unsigned whole number, if it is one.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int64(v) => u64::try_from(*v).ok(),
            Self::Uint64(v) => Some(*v),
            _ => None,
        }
    }

    /// The value as a bool, if it is one.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(v) => Some(*v),
            _ => None,
        }
    }

    /// The value as text, if it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(v) => Some(v),
            _ => None,
        }
    }
}

/// An ordered list of parameters; a key stands in it at most once. Look-ups are linear: lists are short and
/// their length is bounded by [`Limits::max_parameters`](crate::Limits).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parameters(Vec<(String, ParameterValue)>);

impl Parameters {
    /// An empty list; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&ParameterValue> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Sets a key; a value that was there is replaced in its place and handed back.
    pub fn insert(&mut self, key: impl Into<String>, value: ParameterValue) -> Option<ParameterValue> {
        let key = key.into();
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<ParameterValue> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.remove(at).1)
    }

    /// The entries in the order they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &ParameterValue)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Parameters {
    type Item = (String, ParameterValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<String>> FromIterator<(K, ParameterValue)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (K, ParameterValue)>>(iter: I) -> Self {
        let mut list = Self::new();
        for (key, value) in iter {
            list.insert(key, value);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::{ParameterValue, Parameters};

    #[test]
    fn a_key_stands_once_and_order_is_kept() {
        let mut list: Parameters =
            [("b", ParameterValue::Bool(true)), ("a", ParameterValue::Int64(1))].into_iter().collect();
        assert_eq!(list.insert("b", ParameterValue::Double(0.5)), Some(ParameterValue::Bool(true)));
        let entries: Vec<_> = list.iter().collect();
        assert_eq!(entries, [("b", &ParameterValue::Double(0.5)), ("a", &ParameterValue::Int64(1))]);
        assert_eq!(list.remove("b"), Some(ParameterValue::Double(0.5)));
        assert_eq!((list.len(), list.get("b")), (1, None));
        assert_eq!(ParameterValue::Int64(-1).as_u64(), None);
    }
}
