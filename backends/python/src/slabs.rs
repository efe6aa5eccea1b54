//! Shared memory between the server and the process of an instance: files without a name, one a large tensor at a time.
//! They are read and written, never mapped here: the process may shorten its own at any time, and that must be an error,
//! not a signal. The price is one copy of each tensor.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// The smallest slab, in bytes.
const SMALLEST: u64 = 64 << 10;
/// How many bytes of free slabs are kept for the next tensors.
const KEPT: u64 = 64 << 20;
/// Set in the number of a slab that the process gives up for good.
pub(crate) const DROPPED: u32 = 1 << 31;
/// How long the file of a slab may lag behind the frame that names it. It is sent first.
const LAG: Duration = Duration::from_secs(5);

/// Number and size of a slab, as they go with its file.
const NOTE: usize = 12;

struct Slab {
    number: u32,
    file: Arc<OwnedFd>,
    size: u64,
}

/// Our slabs: with inputs for the process.
pub(crate) struct Ours {
    files: UnixStream,
    next: u32,
    free: Vec<Slab>,
    lent: HashMap<u32, Slab>,
}

impl Ours {
    /// `files`: where the process takes files from.
    pub(crate) fn new(files: UnixStream) -> Self {
        Self { files, next: 1, free: Vec::new(), lent: HashMap::new() }
    }

    /// Lends a slab of at least `size` bytes: its number, its file and its size.
    pub(crate) fn lend(&mut self, size: u64) -> io::Result<(u32, Arc<OwnedFd>, u64)> {
        let fits = self.free.iter().enumerate().filter(|(_, slab)| slab.size >= size);
        let slab = match fits.min_by_key(|(_, slab)| slab.size).map(|(at, _)| at) {
            Some(at) => self.free.swap_remove(at),
            None => self.make(size)?,
        };
        let given = (slab.number, Arc::clone(&slab.file), slab.size);
        self.lent.insert(slab.number, slab);
        Ok(given)
    }

    /// How many the process has.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> usize {
        self.lent.len()
    }

    fn make(&mut self, size: u64) -> io::Result<Slab> {
        let size = size.checked_next_power_of_two().ok_or(io::ErrorKind::OutOfMemory)?.max(SMALLEST);
        let file = rustix::fs::memfd_create("trireme-input", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, size)?;
        let number = self.next;
        self.next =
            number.checked_add(1).filter(|next| next & DROPPED == 0).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut note = [0; NOTE];
        note[..4].copy_from_slice(&number.to_le_bytes());
        note[4..].copy_from_slice(&size.to_le_bytes());
        send_file(&self.files, &note, file.as_fd())?;
        Ok(Slab { number, file: Arc::new(file), size })
    }

    /// The process has done with a slab. The result: one that it need not keep any longer.
    pub(crate) fn returned(&mut self, number: u32) -> Option<u32> {
        self.free.push(self.lent.remove(&number)?);
        if self.free.iter().map(|slab| slab.size).sum::<u64>() <= KEPT {
            return None;
        }
        let largest = self.free.iter().enumerate().max_by_key(|(_, slab)| slab.size).map(|(at, _)| at)?;
        Some(self.free.swap_remove(largest).number)
    }
}

/// The slabs of the process: with outputs for us.
pub(crate) struct Theirs {
    files: UnixStream,
    slabs: HashMap<u32, OwnedFd>,
    /// Those that the frame at hand has named.
    read: Vec<u32>,
}

impl Theirs {
    pub(crate) fn new(files: UnixStream) -> io::Result<Self> {
        files.set_read_timeout(Some(LAG))?;
        Ok(Self { files, slabs: HashMap::new(), read: Vec::new() })
    }

    /// A copy of what is in a slab.
    pub(crate) fn read(&mut self, number: u32, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        while !self.slabs.contains_key(&number) {
            let (number, file) = receive_file(&self.files)?;
            self.slabs.insert(number, file);
        }
        let file = self.slabs.get(&number).ok_or(io::ErrorKind::NotFound)?;
        let outside = || io::Error::other("a tensor lies outside its shared memory");
        let size = u64::try_from(rustix::fs::fstat(file)?.st_size).map_err(|_| outside())?;
        let end = offset.checked_add(length).filter(|end| *end <= size).ok_or_else(outside)?;
        let mut data = Vec::new();
        let length = usize::try_from(length).map_err(|_| outside())?;
        data.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        while data.len() < length {
            let at = end - (length - data.len()) as u64;
            if rustix::io::pread(file, rustix::buffer::spare_capacity(&mut data), at)? == 0 {
                return Err(outside());
            }
            data.truncate(length);
        }
        if !self.read.contains(&number) {
            self.read.push(number);
        }
        Ok(data)
    }

    /// The slabs that were read since the last call: the process may use them again.
    pub(crate) fn take_read(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.read)
    }

    pub(crate) fn drop_slab(&mut self, number: u32) {
        self.slabs.remove(&number);
    }
}

/// Writes the pieces of a tensor into a slab.
pub(crate) fn write(file: &OwnedFd, mut offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let count = rustix::io::pwrite(file, rest, offset)?;
            rest = &rest[count..];
            offset += count as u64;
        }
    }
    Ok(())
}

/// Sends bytes and a file with them.
pub(crate) fn send_file(to: &UnixStream, bytes: &[u8], file: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    control.push(SendAncillaryMessage::ScmRights(&files));
    let sent = rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent < bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

fn receive_file(from: &UnixStream) -> io::Result<(u32, OwnedFd)> {
    let mut note = [0; NOTE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut note)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    match files.flatten().next() {
        Some(file) if message.bytes == NOTE => {
            Ok((u32::from_le_bytes([note[0], note[1], note[2], note[3]]), file))
        }
        _ => Err(io::Error::other("the file of a slab did not come")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_slab_goes_over_and_back() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut ours = Ours::new(here);
        let mut theirs = Theirs::new(there).unwrap();
        let (number, file, size) = ours.lend(100_000).unwrap();
        assert_eq!(size, 131_072);
        write(&file, 0, &[b"abc", b"", &[7; 1000]]).unwrap();
        assert_eq!(theirs.read(number, 1, 4).unwrap(), [b'b', b'c', 7, 7]);
        assert!(theirs.read(number, 131_000, 73).is_err(), "it is not longer than 131072");
        assert!(theirs.read(number, u64::MAX, 2).is_err());
        rustix::fs::ftruncate(&file, 2).unwrap();
        assert!(theirs.read(number, 0, 4).is_err(), "the other side may shorten it");
        assert_eq!(ours.returned(number), None);
        assert_eq!(ours.lend(10).unwrap().0, number, "used again");
        assert_ne!(ours.lend(10).unwrap().0, number);
        assert_eq!(ours.returned(77), None, "not lent");
    }

    #[test]
    fn large_slabs_are_not_kept_for_ever() {
        let (here, _there) = UnixStream::pair().unwrap();
        let mut ours = Ours::new(here);
        let lent: Vec<u32> = (0..3).map(|_| ours.lend(32 << 20).unwrap().0).collect();
        assert_eq!(lent.iter().filter_map(|number| ours.returned(*number)).count(), 1);
    }
}
