//! Tensors on a GPU go between the server and the process of an instance where they are: with a frame goes what the other side
//! needs to open their memory. It is kept by who has it until the other side says that it has done with it.

use std::collections::HashMap;
use std::sync::Arc;

use trireme_sdk::{DataType, Error, Exported, Host, Memory, Response, Result};

use crate::outgoing::{Put, Sender};
use crate::slabs::DROPPED;
use crate::wire::{Cursor, Malformed, TensorHead};

/// Set in the number of a tensor that is on a GPU, in the place of a slab.
pub(crate) const GPU: u32 = 1 << 30;

/// Memory of the server that the process has open.
#[derive(Default)]
pub(crate) struct Lent {
    next: u32,
    held: HashMap<u32, Memory>,
}

impl Lent {
    /// A number for memory, which is kept until it is given back.
    pub(crate) fn lend(&mut self, memory: Memory) -> u32 {
        // Numbers come again after a thousand million tensors.
        self.next = (self.next + 1) & (GPU - 1);
        let number = self.next | GPU;
        self.held.insert(number, memory);
        number
    }

    /// The process does not read it any more: to be dropped without the lock.
    pub(crate) fn returned(&mut self, number: u32) -> Option<Memory> {
        self.held.remove(&number)
    }
}

/// Whether the number of a tensor, or of what is given back, is that of one on a GPU.
pub(crate) fn is_gpu(number: u32) -> bool {
    number & (GPU | DROPPED) == GPU
}

/// What goes among the small tensors: the GPU, and what opens the memory there.
pub(crate) fn place(device: i32, exported: &Exported) -> Vec<u8> {
    let mut place = Vec::with_capacity(16 + exported.handle.len());
    place.put(device.to_le_bytes());
    place.put((exported.handle.len() as u32).to_le_bytes());
    place.put(exported.offset.to_le_bytes());
    place.extend_from_slice(&exported.handle);
    place
}

/// Adds an output that the process has on a GPU. The process is told when nobody reads it any more.
///
/// # Errors
/// The frame is not as it must be, or the memory cannot be opened, which is an error of the request.
pub(crate) fn output(
    response: Response,
    (host, sender): (&Host, &Arc<Sender>),
    head: &TensorHead<'_>,
    data: &[u8],
) -> std::result::Result<Result<Response>, Malformed> {
    let begin = usize::try_from(head.offset).map_err(|_| Malformed)?;
    let mut cursor = Cursor::new(data.get(begin..).ok_or(Malformed)?);
    let (device, handle, offset) = (cursor.u32()?, cursor.u32()? as usize, cursor.u64()?);
    let device = i32::try_from(device).map_err(|_| Malformed)?;
    let exported = Exported { handle: cursor.bytes(handle)?.to_vec(), offset };
    let length = usize::try_from(head.length).map_err(|_| Malformed)?;
    let elements = head
        .shape
        .iter()
        .try_fold(1usize, |product, dim| usize::try_from(*dim).ok().and_then(|dim| product.checked_mul(dim)));
    let size = head.data_type.byte_size().and_then(|size| elements?.checked_mul(size));
    if head.data_type == DataType::Bytes || size != Some(length) || length == 0 {
        return Err(Malformed);
    }
    let number = head.slab;
    let opened = host.open_exported(device, &exported, length);
    let told = |memory: Memory| {
        let (host, to) = (host.clone(), Arc::clone(sender));
        memory.when_released(move |done_event| {
            // The process uses the memory again as soon as it hears of it.
            if done_event != 0 {
                let _ = host.wait_for(device, done_event);
            }
            to.release_now(number);
        })
    };
    Ok(match opened {
        Ok(memory) => response.memory(head.name, head.data_type, &head.shape, told(memory)),
        Err(error) => {
            sender.release_now(number);
            Err(Error {
                message: format!("output '{}' on GPU {device}: {}", head.name, error.message),
                ..error
            })
        }
    })
}
