//! The frames between the server and the process of an instance; `python/trireme_python/frames.py` is the other half.
//!
//! ```text
//! head:  length of the body u32 | kind u8 | 3 zero bytes
//! body of a frame with tensors:
//!        length of the description u32 | 4 zero bytes | description | zeros up to a multiple of 16 | small tensors
//! ```
//! All numbers are little endian. Large tensors are in shared memory ([`crate::slabs`]), those on a GPU stay there ([`crate::gpu`]).

use std::io::{self, Read};

use trireme_sdk::DataType;

pub(crate) const HEAD: usize = 8;
const META: usize = 8;
/// The longest body that is taken, in bytes: an answer's small tensors and texts, not its large tensors.
const MAX_BODY: u32 = 256 << 20;

/// Kinds of frames to the process.
pub(crate) mod to {
    pub(crate) const SETUP: u8 = 1;
    pub(crate) const EXECUTE: u8 = 2;
    pub(crate) const ANSWER: u8 = 3;
    pub(crate) const REPLY: u8 = 4;
    pub(crate) const ACCEPTED: u8 = 5;
    pub(crate) const RELEASED: u8 = 6;
    pub(crate) const FINISH: u8 = 7;
    pub(crate) const FORGET: u8 = 8;
}

/// Kinds of frames from the process.
pub(crate) mod from {
    pub(crate) const READY: u8 = 1;
    pub(crate) const FAILED: u8 = 2;
    pub(crate) const CONFIG: u8 = 3;
    pub(crate) const DONE: u8 = 4;
    pub(crate) const RESPONSE: u8 = 5;
    pub(crate) const CALL: u8 = 6;
    pub(crate) const ASK: u8 = 7;
    pub(crate) const LOG: u8 = 8;
    pub(crate) const RETURN: u8 = 9;
    pub(crate) const METRIC: u8 = 10;
    pub(crate) const BYE: u8 = 11;
    pub(crate) const LOAD: u8 = 12;
}

/// What the process sent is not what it must send; it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A frame with nothing but a body.
pub(crate) fn plain(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&[kind, 0, 0, 0]);
    frame.extend_from_slice(body);
    frame
}

/// A frame with a description and the data of small tensors; none if it would be longer than a frame can be.
pub(crate) fn described(kind: u8, meta: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let begin = (META + meta.len()).next_multiple_of(16);
    let length = u32::try_from(begin.checked_add(data.len())?).ok()?;
    let mut frame = Vec::with_capacity(HEAD + length as usize);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&[kind, 0, 0, 0]);
    frame.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(meta);
    frame.resize(HEAD + begin, 0);
    frame.extend_from_slice(data);
    Some(frame)
}

/// Reads a frame: its kind, and its body into `body`. None at the end.
pub(crate) fn read(stream: &mut impl Read, body: &mut Vec<u8>) -> io::Result<Option<u8>> {
    let mut head = [0; HEAD];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    if length > MAX_BODY {
        return Err(io::Error::other(format!("a frame of {length} bytes, allowed are {MAX_BODY}")));
    }
    body.clear();
    // Grows with what arrives, not with what is announced.
    let got = stream.by_ref().take(length.into()).read_to_end(body)?;
    Ok((got == length as usize).then_some(head[4]))
}

/// Reads the parts of a body one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The description of a frame with tensors, and the data of the small ones.
    pub(crate) fn described(body: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let mut head = Self::new(body);
        let meta = head.u32()? as usize;
        let end = META.checked_add(meta).ok_or(Malformed)?;
        let data = body.get(end.next_multiple_of(16).min(body.len())..).ok_or(Malformed)?;
        Ok((Self::new(body.get(META..end).ok_or(Malformed)?), data))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.bytes.split_at_checked(count).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, Malformed> {
        self.array().map(f64::from_le_bytes)
    }

    pub(crate) fn text(&mut self, count: usize) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(count)?).map_err(|_| Malformed)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
}

/// A tensor as a frame describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorHead<'a> {
    pub(crate) name: &'a str,
    pub(crate) data_type: DataType,
    pub(crate) shape: Vec<i64>,
    /// The slab with its data, or 0: it is in the frame.
    pub(crate) slab: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl<'a> TensorHead<'a> {
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let (data_type, rank, name) = (cursor.u8()?, cursor.u8()?, cursor.u16()?);
        let (slab, offset, length) = (cursor.u32()?, cursor.u64()?, cursor.u64()?);
        let shape = (0..rank).map(|_| cursor.i64()).collect::<Result<_, _>>()?;
        let name = cursor.text(name.into())?;
        Ok(Self { name, data_type: data_type_of(data_type)?, shape, slab, offset, length })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), Malformed> {
        let rank = u8::try_from(self.shape.len()).map_err(|_| Malformed)?;
        let name = u16::try_from(self.name.len()).map_err(|_| Malformed)?;
        to.extend_from_slice(&[self.data_type as u32 as u8, rank]);
        to.extend_from_slice(&name.to_le_bytes());
        to.extend_from_slice(&self.slab.to_le_bytes());
        to.extend_from_slice(&self.offset.to_le_bytes());
        to.extend_from_slice(&self.length.to_le_bytes());
        self.shape.iter().for_each(|dim| to.extend_from_slice(&dim.to_le_bytes()));
        to.extend_from_slice(self.name.as_bytes());
        Ok(())
    }
}

fn data_type_of(number: u8) -> Result<DataType, Malformed> {
    use DataType as D;
    let all = [
        D::Bool,
        D::Uint8,
        D::Uint16,
        D::Uint32,
        D::Uint64,
        D::Int8,
        D::Int16,
        D::Int32,
        D::Int64,
        D::Fp16,
        D::Fp32,
        D::Fp64,
        D::Bytes,
        D::Bf16,
    ];
    all.into_iter().find(|data_type| *data_type as u32 == u32::from(number)).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_frame_survives_and_a_torn_one_is_no_frame() {
        let head = TensorHead {
            name: "IN",
            data_type: DataType::Fp32,
            shape: vec![1, 3],
            slab: 0,
            offset: 0,
            length: 12,
        };
        let mut meta = Vec::new();
        head.write(&mut meta).unwrap();
        let frame = described(to::EXECUTE, &meta, &[7; 12]).unwrap();
        let mut body = Vec::new();
        assert_eq!(read(&mut frame.as_slice(), &mut body).unwrap(), Some(to::EXECUTE));
        let (mut cursor, data) = Cursor::described(&body).unwrap();
        assert_eq!(TensorHead::read(&mut cursor).unwrap(), head);
        assert_eq!((cursor.rest(), data), (&[][..], &[7; 12][..]));
        for cut in 0..frame.len() {
            assert_eq!(read(&mut &frame[..cut], &mut body).unwrap(), None, "{cut}");
        }
        for cut in 0..meta.len() {
            assert!(TensorHead::read(&mut Cursor::new(&meta[..cut])).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused() {
        let mut frame = plain(from::LOG, b"x");
        frame[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&mut frame.as_slice(), &mut Vec::new()).is_err());
        assert!(Cursor::described(&[255, 255, 255, 255, 0, 0, 0, 0]).is_err());
        assert!(Cursor::described(&[1]).is_err());
    }
}
