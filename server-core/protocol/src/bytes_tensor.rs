//! BYTES framing: each element is a little-endian `u32` length and that many bytes.
//!
//! ```text
//! | 5 0 0 0 | h e l l o | 0 0 0 0 | 2 0 0 0 | h i |
//! ```

use crate::error::{ProtocolError, Result};

/// The bytes of an element's length field.
pub const LENGTH_BYTES: usize = 4;

/// What is wrong with the framing of a BYTES tensor; offsets and sizes are in bytes.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
pub enum FramingError {
    /// Fewer than four bytes are left where a length should stand.
    #[error("element {element} has an incomplete length: {left} of 4 bytes left")]
    ShortLength {
        /// Index of the element.
        element: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length points past the end.
    #[error("element {element} has a length of {length} bytes but only {left} are left")]
    ShortElement {
        /// Index of the element.
        element: usize,
        /// The length that the element claims.
        length: usize,
        /// Bytes that are left after the length.
        left: usize,
    },
    /// The framing is whole but holds another number of elements.
    #[error("expected {expected} elements, got {got}")]
    Count {
        /// What the shape needs.
        expected: usize,
        /// What the data holds.
        got: usize,
    },
}

/// Walks the elements of a BYTES tensor; after an error it ends.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    index: usize,
}

/// The elements of a BYTES tensor as slices of it.
#[must_use]
pub fn elements(data: &[u8]) -> Elements<'_> {
    Elements { rest: data, index: 0 }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], FramingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let element = self.index;
        self.index += 1;
        let Some((length, rest)) = self.rest.split_first_chunk::<LENGTH_BYTES>() else {
            let left = std::mem::take(&mut self.rest).len();
            return Some(Err(FramingError::ShortLength { element, left }));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((bytes, rest)) = rest.split_at_checked(length) else {
            self.rest = &[];
            return Some(Err(FramingError::ShortElement { element, length, left: rest.len() }));
        };
        self.rest = rest;
        Some(Ok(bytes))
    }
}

/// Walks the whole tensor and compares the number of its elements with `expected`.
///
/// # Errors
/// The first break in the framing, or another number of elements.
pub fn validate(data: &[u8], expected: usize) -> Result<(), FramingError> {
    let mut got = 0;
    for element in elements(data) {
        element?;
        got += 1;
    }
    if got == expected { Ok(()) } else { Err(FramingError::Count { expected, got }) }
}

/// Appends one element.
///
/// # Errors
/// The element has more than `u32::MAX` bytes.
pub fn push_element(out: &mut Vec<u8>, element: &[u8]) -> Result<()> {
    let length = u32::try_from(element.len()).map_err(|_| {
        ProtocolError::invalid(format!(
            "a BYTES element of {} bytes is longer than 4294967295",
            element.len()
        ))
    })?;
    out.reserve(LENGTH_BYTES + element.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(element);
    Ok(())
}

/// Frames a list of elements.
///
/// # Errors
/// As [`push_element`].
pub fn encode<T: AsRef<[u8]>>(elements: impl IntoIterator<Item = T>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for element in elements {
        push_element(&mut out, element.as_ref())?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{FramingError, elements, encode, validate};
    use proptest::prelude::*;

    #[test]
    fn each_break_is_named() {
        let data = encode(["hello", "", "hi"]).unwrap();
        assert_eq!(data, b"\x05\0\0\0hello\0\0\0\0\x02\0\0\0hi");
        validate(&data, 3).unwrap();
        validate(&[], 0).unwrap();
        assert_eq!(validate(&data, 2), Err(FramingError::Count { expected: 2, got: 3 }));
        let text = |d: &[u8]| validate(d, 1).unwrap_err().to_string();
        assert_eq!(text(b"\x01\0\0"), "element 0 has an incomplete length: 3 of 4 bytes left");
        assert_eq!(
            text(b"\0\0\0\0\xff\xff\xff\xff!"),
            "element 1 has a length of 4294967295 bytes but only 1 are left"
        );
    }

    proptest! {
        #[test]
        fn framing_round_trips(list in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20)) {
            let data = encode(&list).unwrap();
            validate(&data, list.len()).unwrap();
            let back: Vec<Vec<u8>> = elements(&data).map(|e| e.unwrap().to_vec()).collect();
            prop_assert_eq!(back, list);
        }

        #[test]
        fn any_bytes_end_the_walk(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(elements(&data).count() <= data.len());
        }
    }
}
