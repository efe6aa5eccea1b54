//! The way to the process: frames are sent in order, and nobody who sends one waits for the process to read.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::SendFlags;
use trireme_sdk::{DataType, Error, Exported, Memory, Result};

use crate::gpu::{self, Lent as OnGpu};
use crate::slabs::{self, Ours};
use crate::wire::{self, TensorHead, to};

/// Tensors up to this many bytes go with the frame, as long as they are not more than [`SMALL_TENSORS`] together.
const SMALL_TENSOR: usize = 16 << 10;
const SMALL_TENSORS: usize = 64 << 10;

/// Sends frames to one process.
pub(crate) struct Sender {
    /// Tells this process from those before it.
    pub(crate) generation: u64,
    socket: UnixStream,
    state: Mutex<Waiting>,
}

struct Waiting {
    slabs: Ours,
    /// Inputs on GPUs.
    on_gpu: OnGpu,
    /// Slabs of the process that have been read, to be said with the next frame.
    released: Vec<u8>,
    /// What the socket had no room for.
    frames: VecDeque<Vec<u8>>,
    /// A thread writes `frames`.
    writing: bool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sender {
    pub(crate) fn new(generation: u64, socket: UnixStream, files: UnixStream) -> Arc<Self> {
        let state = Waiting {
            slabs: Ours::new(files),
            on_gpu: OnGpu::default(),
            released: Vec::new(),
            frames: VecDeque::new(),
            writing: false,
        };
        Arc::new(Self { generation, socket, state: Mutex::new(state) })
    }

    /// Sends a frame. That the process is gone is seen by whoever reads from it.
    pub(crate) fn send(self: &Arc<Self>, mut frame: Vec<u8>) {
        let mut state = lock(&self.state);
        if !state.released.is_empty() {
            let mut first = wire::plain(to::RELEASED, &std::mem::take(&mut state.released));
            first.append(&mut frame);
            frame = first;
        }
        if state.writing {
            return state.frames.push_back(frame);
        }
        let sent = rustix::net::send(&self.socket, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let sent = match sent {
            Ok(sent) => sent,
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(_) => return,
        };
        if sent < frame.len() {
            state.frames.push_back(frame.split_off(sent));
            state.writing = true;
            let this = Arc::clone(self);
            let spawned = std::thread::Builder::new()
                .name("python-write".to_owned())
                .spawn(move || this.write_waiting());
            if spawned.is_err() {
                // Half a frame is out: the process cannot be spoken to any more.
                let _ = self.socket.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    fn write_waiting(&self) {
        loop {
            let mut state = lock(&self.state);
            let Some(frame) = state.frames.pop_front() else {
                state.writing = false;
                return;
            };
            drop(state);
            if (&self.socket).write_all(&frame).is_err() {
                // Gone. What would be written is of no use to anybody.
                lock(&self.state).frames.clear();
            }
        }
    }

    /// The process has done with slabs of ours.
    pub(crate) fn returned(self: &Arc<Self>, number: u32) {
        if gpu::is_gpu(number) {
            let memory = lock(&self.state).on_gpu.returned(number);
            return drop(memory);
        }
        let forget = lock(&self.state).slabs.returned(number);
        if let Some(forget) = forget {
            self.send(wire::plain(to::FORGET, &forget.to_le_bytes()));
        }
    }

    /// A slab of the process has been read.
    pub(crate) fn release(&self, number: u32) {
        lock(&self.state).released.extend_from_slice(&number.to_le_bytes());
    }

    /// The same at once: for what is released at other times than those of frames.
    pub(crate) fn release_now(self: &Arc<Self>, number: u32) {
        self.send(wire::plain(to::RELEASED, &number.to_le_bytes()));
    }

    /// Ends the conversation: whoever reads from the process sees the end.
    pub(crate) fn hang_up(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// A frame with tensors that is being made. Unless it is finished, what was lent for it is given back.
pub(crate) struct Outgoing<'a> {
    sender: &'a Arc<Sender>,
    pub(crate) meta: Vec<u8>,
    data: Vec<u8>,
    /// Where large tensors go until it is full. The next one is twice as large, so that a frame has few of them: the
    /// process takes their files only when it has read the frame.
    slab: Option<Lent>,
    /// The numbers of what the process has only by this frame: slabs, and tensors on GPUs.
    lent: Vec<u32>,
}

/// How much of a frame there is.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    meta: usize,
    data: usize,
    lent: usize,
}

struct Lent {
    number: u32,
    file: Arc<OwnedFd>,
    used: u64,
    size: u64,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(sender: &'a Arc<Sender>) -> Self {
        Self { sender, meta: Vec::with_capacity(256), data: Vec::new(), slab: None, lent: Vec::new() }
    }

    /// Adds a tensor whose data is in these pieces.
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        data_type: DataType,
        shape: &[i64],
        pieces: &[&[u8]],
    ) -> Result<()> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let failed =
            |error: std::io::Error| Error::unavailable(format!("shared memory for '{name}': {error}"));
        let (slab, offset) = if length <= SMALL_TENSOR && self.data.len() + length <= SMALL_TENSORS {
            let offset = self.data.len();
            // Copied: the process has memory of its own.
            pieces.iter().for_each(|piece| self.data.extend_from_slice(piece));
            self.data.resize(self.data.len().next_multiple_of(16), 0);
            (0, offset as u64)
        } else {
            let slab = self.room(length as u64).map_err(failed)?;
            let offset = slab.used;
            slab.used = (offset + length as u64).next_multiple_of(64);
            // Copied: the process has memory of its own.
            slabs::write(&slab.file, offset, pieces).map_err(failed)?;
            (slab.number, offset)
        };
        let head = TensorHead { name, data_type, shape: shape.to_vec(), slab, offset, length: length as u64 };
        let too_long =
            |_| Error::invalid(format!("tensor '{name}' has too long a name or too many dimensions"));
        head.write(&mut self.meta).map_err(too_long)
    }

    /// Adds a tensor that stays where it is on a GPU; its bytes are there.
    pub(crate) fn on_gpu(
        &mut self,
        (name, data_type, shape): (&str, DataType, &[i64]),
        (memory, exported): (Memory, &Exported),
    ) -> Result<()> {
        let device = memory.on_device().map_or(0, |view| view.device);
        let (offset, length) = (self.data.len() as u64, memory.byte_size() as u64);
        self.data.extend_from_slice(&gpu::place(device, exported));
        self.data.resize(self.data.len().next_multiple_of(16), 0);
        let slab = lock(&self.sender.state).on_gpu.lend(memory);
        self.lent.push(slab);
        let head = TensorHead { name, data_type, shape: shape.to_vec(), slab, offset, length };
        let too_long =
            |_| Error::invalid(format!("tensor '{name}' has too long a name or too many dimensions"));
        head.write(&mut self.meta).map_err(too_long)
    }

    /// A slab with room for so many bytes more.
    fn room(&mut self, length: u64) -> std::io::Result<&mut Lent> {
        let last = self.slab.take();
        let twice = last.as_ref().map_or(0, |slab| slab.size.saturating_mul(2));
        let slab = match last.filter(|slab| slab.size.saturating_sub(slab.used) >= length) {
            Some(slab) => slab,
            None => {
                let lent = lock(&self.sender.state).slabs.lend(length.max(twice)).map(Lent::from)?;
                self.lent.push(lent.number);
                lent
            }
        };
        Ok(self.slab.insert(slab))
    }

    /// How much there is, to come back to by [`Outgoing::rewind`].
    pub(crate) fn mark(&self) -> Mark {
        Mark { meta: self.meta.len(), data: self.data.len(), lent: self.lent.len() }
    }

    /// Forgets what was added since; what was lent for it comes back.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.meta.truncate(mark.meta);
        self.data.truncate(mark.data);
        for number in self.lent.split_off(mark.lent) {
            self.slab.take_if(|slab| slab.number == number);
            self.sender.returned(number);
        }
    }

    /// The frame, which is to be sent.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn frame(mut self, kind: u8) -> Result<Vec<u8>> {
        let frame = wire::described(kind, &self.meta, &self.data)
            .ok_or_else(|| Error::invalid("the texts of a batch are more than 4 GiB together"))?;
        self.lent.clear();
        Ok(frame)
    }
}

impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        self.lent.drain(..).for_each(|number| self.sender.returned(number));
    }
}

impl From<(u32, Arc<OwnedFd>, u64)> for Lent {
    fn from((number, file, size): (u32, Arc<OwnedFd>, u64)) -> Self {
        Self { number, file, used: 0, size }
    }
}

/// Adds numbers to a description.
pub(crate) trait Put {
    fn put<const N: usize>(&mut self, bytes: [u8; N]);
}

impl Put for Vec<u8> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.extend_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lent(sender: &Sender) -> usize {
        lock(&sender.state).slabs.lent()
    }

    #[test]
    fn what_is_not_sent_is_not_lent() {
        let ((socket, _there), (files, _theirs)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let sender = Sender::new(1, socket, files);
        let large = vec![0; 2 * SMALL_TENSOR];
        let add = |frame: &mut Outgoing<'_>, times: usize| {
            for _ in 0..times {
                frame.tensor("x", DataType::Uint8, &[1], &[&large]).unwrap();
            }
        };
        let mut frame = Outgoing::new(&sender);
        add(&mut frame, 1);
        let mark = frame.mark();
        // More than what there is room for: a second slab.
        add(&mut frame, 3);
        assert_eq!(lent(&sender), 2);
        frame.rewind(mark);
        assert_eq!(lent(&sender), 1, "the first is of a request that goes");
        add(&mut frame, 3);
        frame.frame(wire::to::EXECUTE).unwrap();
        assert_eq!(lent(&sender), 2, "until the process gives them back");

        let mut frame = Outgoing::new(&sender);
        add(&mut frame, 1);
        drop(frame);
        assert_eq!(lent(&sender), 2);
    }
}
