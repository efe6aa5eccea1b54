//! Reading little-endian numbers and strings from the front of a file.

use super::Kind;

/// A position in a file; nothing is read past the end.
pub(super) struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

macro_rules! numbers {
    ($($ty:ident),*) => {$(
        pub(super) fn $ty(&mut self) -> Result<$ty, Kind> {
            self.array().map($ty::from_le_bytes)
        }
    )*};
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn remaining(&self) -> usize {
        self.file.len() - self.at
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Kind> {
        let bytes = self.file[self.at..].get(..n).ok_or_else(|| {
            Kind::Malformed(format!(
                "{n} bytes are claimed at byte {}, {} are left",
                self.at,
                self.remaining()
            ))
        })?;
        self.at += n;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Kind> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| Kind::malformed("a number is cut off"))
    }

    numbers!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

    /// A count of things that take at least `each` bytes in the file, which bounds it.
    pub(super) fn check_count(&self, what: &str, count: u64, each: u64) -> Result<usize, Kind> {
        if count > self.remaining() as u64 / each {
            return Err(Kind::Malformed(format!(
                "{count} {what} are claimed at byte {}, the {} bytes that are left cannot hold them",
                self.at,
                self.remaining()
            )));
        }
        Ok(count as usize)
    }

    pub(super) fn string(&mut self) -> Result<&'a str, Kind> {
        let claimed = self.u64()?;
        let len = self.check_count("bytes of text", claimed, 1)?;
        let at = self.at;
        std::str::from_utf8(self.take(len)?)
            .map_err(|_| Kind::Malformed(format!("the text at byte {at} is not UTF-8")))
    }
}
