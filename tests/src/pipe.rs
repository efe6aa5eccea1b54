//! Requests and answers as bytes on a pipe: what a backend in a process of its own would be sent. Numbers are little
//! endian; element types and status codes are those of the ABI.

use std::io::{Error, ErrorKind, Read, Result, Write};

/// No frame is longer.
const MAX_FRAME: usize = 64 << 20;

/// A request (status 0) or an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// Which request this is or belongs to.
    pub id: u64,
    /// `StatusCode`; 0: none.
    pub status: u32,
    /// What went wrong, if anything.
    pub text: String,
    /// The inputs or outputs.
    pub tensors: Vec<Tensor>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// `DType`.
    pub dtype: u32,
    /// Its dimensions.
    pub shape: Vec<i64>,
    /// Its bytes, as the ABI has them.
    pub data: Vec<u8>,
}

impl Message {
    /// Writes the frame: length, then content.
    ///
    /// # Errors
    /// The other end is gone, or the message is too long.
    pub fn write(&self, to: &mut impl Write) -> Result<()> {
        let mut frame = vec![0; 4];
        frame.extend(self.id.to_le_bytes());
        frame.extend(self.status.to_le_bytes());
        put(&mut frame, self.text.as_bytes())?;
        frame.extend(length(self.tensors.len())?);
        for tensor in &self.tensors {
            put(&mut frame, tensor.name.as_bytes())?;
            frame.extend(tensor.dtype.to_le_bytes());
            frame.extend(length(tensor.shape.len())?);
            tensor.shape.iter().for_each(|dim| frame.extend(dim.to_le_bytes()));
            put(&mut frame, &tensor.data)?;
        }
        let content = length(frame.len() - 4)?;
        frame[..4].copy_from_slice(&content);
        to.write_all(&frame)?;
        to.flush()
    }

    /// Reads a frame; none at the end.
    ///
    /// # Errors
    /// The other end breaks off within a frame, or sends what is none.
    pub fn read(from: &mut impl Read) -> Result<Option<Self>> {
        let mut length = [0; 4];
        // Nothing at all is an end, one to three bytes are not.
        if from.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut length[1..])?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(broken("a frame is too long"));
        }
        let mut frame = vec![0; length];
        from.read_exact(&mut frame)?;
        let mut rest = frame.as_slice();
        let message = Self::parse(&mut rest)?;
        if rest.is_empty() { Ok(Some(message)) } else { Err(broken("a frame is longer than its content")) }
    }

    fn parse(rest: &mut &[u8]) -> Result<Self> {
        let (id, status) = (u64::from_le_bytes(array(rest)?), u32::from_le_bytes(array(rest)?));
        let text = text(rest)?;
        // Grows with what is really there, whatever the counts say.
        let mut tensors = Vec::new();
        for _ in 0..u32::from_le_bytes(array(rest)?) {
            let (name, dtype) = (self::text(rest)?, u32::from_le_bytes(array(rest)?));
            let mut shape = Vec::new();
            for _ in 0..u32::from_le_bytes(array(rest)?) {
                shape.push(i64::from_le_bytes(array(rest)?));
            }
            tensors.push(Tensor { name, dtype, shape, data: bytes(rest)?.to_vec() });
        }
        Ok(Self { id, status, text, tensors })
    }
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

fn length(count: usize) -> Result<[u8; 4]> {
    let count = u32::try_from(count).ok().filter(|count| *count as usize <= MAX_FRAME);
    count.map(u32::to_le_bytes).ok_or_else(|| broken("a message is too long for a frame"))
}

fn put(frame: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    frame.extend(length(bytes.len())?);
    frame.extend(bytes);
    Ok(())
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (array, behind) = rest.split_first_chunk().ok_or_else(|| broken("a frame ends too early"))?;
    *rest = behind;
    Ok(*array)
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = u32::from_le_bytes(array(rest)?) as usize;
    let (bytes, behind) = rest.split_at_checked(length).ok_or_else(|| broken("a frame ends too early"))?;
    *rest = behind;
    Ok(bytes)
}

fn text(rest: &mut &[u8]) -> Result<String> {
    String::from_utf8(bytes(rest)?.to_vec()).map_err(|_| broken("a text is not UTF-8"))
}
