//! Brings inputs where they are read.

use smallvec::smallvec;
use trireme_abi::{Buffer, InstanceKind, MemoryKind};

use super::memory::ProviderMemory;
use super::{find, no_provider};
use crate::memory::{ALIGNMENT, HostMemory, bytes_buffer};
use crate::request::{Input, Request};
use crate::status::Status;

/// Where an instance reads its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// In the memory of the process only.
    Host,
    /// Also in that of this GPU.
    Gpu(i32),
}

impl Reader {
    pub(crate) fn of(reads_gpu: bool, kind: InstanceKind, device: i32) -> Self {
        if reads_gpu && kind == InstanceKind::GPU { Self::Gpu(device) } else { Self::Host }
    }

    /// Copies those inputs that are where this reader does not read.
    pub(crate) fn bring(self, request: &mut Request) -> Result<(), Status> {
        request
            .inputs
            .iter_mut()
            .filter(|input| input.device.is_some())
            .try_for_each(|input| self.bring_one(input))
    }

    fn bring_one(self, input: &mut Input) -> Result<(), Status> {
        let Some(tensor) = &input.device else { return Ok(()) };
        match self {
            Self::Gpu(device) if device == tensor.device() => {}
            Self::Gpu(device) if find(device).is_some() => input.device = Some(tensor.copy_to(device)?),
            Self::Gpu(_) | Self::Host => {
                let bytes = tensor.to_host()?;
                (input.buffers, input.device) = (smallvec![bytes], None);
            }
        }
        Ok(())
    }
}

/// The whole input in one buffer of a kind.
pub(crate) fn gather(input: &Input, kind: MemoryKind, device: i32) -> Result<Buffer, Status> {
    match (kind, &input.device) {
        (MemoryKind::CPU, Some(tensor)) => Ok(bytes_buffer(tensor.to_host()?)),
        (MemoryKind::CPU, None) => match input.buffers.as_slice() {
            [one] if (one.as_ptr() as usize).is_multiple_of(ALIGNMENT) => Ok(bytes_buffer(one.clone())),
            // Copied: the pieces are apart, or where they were received is not aligned.
            pieces => Ok(HostMemory::copied(pieces)?.into_buffer()),
        },
        (MemoryKind::GPU, Some(tensor)) if tensor.device() == device => Ok(tensor.clone().into_buffer()),
        (MemoryKind::GPU, Some(tensor)) => Ok(tensor.copy_to(device)?.into_buffer()),
        (MemoryKind::GPU, None) => {
            let found = find(device).ok_or_else(|| no_provider(kind, device))?;
            // Copied: it came to the memory of the process.
            let memory = ProviderMemory::on(found, input.byte_size())?;
            memory.fill_from(&input.buffers)?;
            Ok(memory.into_buffer())
        }
        (MemoryKind::CPU_PINNED, _) => {
            let pieces = match &input.device {
                Some(tensor) => smallvec![tensor.to_host()?],
                None => input.buffers.clone(),
            };
            let memory = ProviderMemory::pinned_for(device, input.byte_size())?;
            // Copied: what came over the network is not pinned.
            memory.fill_from(&pieces)?;
            Ok(memory.into_buffer())
        }
        _ => Err(no_provider(kind, device)),
    }
}

/// The request is released, but its inputs on a device are read until `event`.
pub(crate) fn note_done(request: &Request, event: u64) {
    request
        .inputs
        .iter()
        .filter_map(|input| input.device.as_ref())
        .for_each(|tensor| tensor.used_until(event));
}
