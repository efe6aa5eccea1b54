/// The data of a BYTES tensor is not framed as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a BYTES tensor ends within an element")]
pub struct BytesError;

/// The elements of a BYTES tensor: each a little-endian `u32` length and that many bytes.
///
/// # Errors
/// The data ends within an element.
pub fn bytes_elements(mut data: &[u8]) -> Result<Vec<&[u8]>, BytesError> {
    let mut elements = Vec::new();
    while !data.is_empty() {
        let (length, rest) = data.split_first_chunk::<4>().ok_or(BytesError)?;
        let (element, rest) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(BytesError)?;
        elements.push(element);
        data = rest;
    }
    Ok(elements)
}

/// The data of a BYTES tensor with these elements.
///
/// # Panics
/// An element of 4 GiB or more.
pub fn encode_bytes<T: AsRef<[u8]>>(elements: &[T]) -> Vec<u8> {
    let mut data = Vec::with_capacity(elements.iter().map(|element| 4 + element.as_ref().len()).sum());
    for element in elements {
        let element = element.as_ref();
        assert!(u32::try_from(element.len()).is_ok(), "an element of 4 GiB or more");
        data.extend_from_slice(&(element.len() as u32).to_le_bytes());
        data.extend_from_slice(element);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_survive_the_wire() {
        let data = encode_bytes(&["", "a", "zwölf"]);
        assert_eq!(bytes_elements(&data), Ok(vec!["".as_bytes(), b"a", "zwölf".as_bytes()]));
        assert_eq!(bytes_elements(&data[..data.len() - 1]), Err(BytesError));
        assert_eq!(bytes_elements(&[1, 0]), Err(BytesError));
    }
}
