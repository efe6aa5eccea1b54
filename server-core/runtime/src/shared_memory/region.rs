//! What is behind a registered region: an object of the system, or memory of a GPU.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use trireme_host::DeviceTensor;
use trireme_protocol::{SharedMemoryRef, TensorData};

use super::{CudaRegionStatus, RegionStatus};
use crate::ensemble::held;
use crate::error::ServeError;

/// Where Linux has the objects that `shm_open` makes.
const OBJECTS: &str = "/dev/shm/";
/// Names of regions that backends keep for themselves begin so.
const RESERVED: &str = "triton_python_backend_shm_region_";

/// One registered region.
#[derive(Debug)]
pub(crate) struct Region {
    name: String,
    pub(super) byte_size: u64,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    System {
        object: File,
        key: String,
        /// Where the region begins in the object.
        offset: u64,
    },
    Cuda(DeviceTensor),
}

impl Region {
    /// A part of a shared memory object of the system.
    ///
    /// # Errors
    /// INTERNAL for a key that cannot be opened, INVALID_ARG for bounds that lie outside of the object.
    pub(super) fn of_object(name: &str, key: &str, offset: u64, byte_size: u64) -> Result<Self, ServeError> {
        let object = open(key)?;
        let invalid =
            || ServeError::invalid(format!("failed to register shared memory region '{name}': invalid args"));
        let length = object.metadata().ok().filter(|file| file.is_file()).ok_or_else(invalid)?.len();
        let end = offset.checked_add(byte_size).ok_or_else(invalid)?;
        if byte_size == 0 || end > length {
            return Err(invalid());
        }
        let memory = Memory::System { object, key: key.to_owned(), offset };
        Ok(Self { name: name.to_owned(), byte_size, memory })
    }

    /// Memory of a GPU that its provider has opened.
    pub(super) fn of_device(name: &str, opened: DeviceTensor, byte_size: u64) -> Self {
        Self { name: name.to_owned(), byte_size, memory: Memory::Cuda(opened) }
    }

    pub(crate) fn is_cuda(&self) -> bool {
        matches!(self.memory, Memory::Cuda(_))
    }

    pub(super) fn status(&self) -> Option<RegionStatus> {
        let Memory::System { key, offset, .. } = &self.memory else { return None };
        let (name, key) = (self.name.clone(), key.clone());
        Some(RegionStatus { name, key, offset: *offset, byte_size: self.byte_size })
    }

    pub(super) fn cuda_status(&self) -> Option<CudaRegionStatus> {
        let Memory::Cuda(tensor) = &self.memory else { return None };
        let (name, device) = (self.name.clone(), tensor.device());
        Some(CudaRegionStatus { name, device, byte_size: self.byte_size })
    }

    /// A part that [`super::SharedMemory::find`] has allowed: a copy of it, or where it is on its GPU. A tensor there keeps `keep`
    /// for as long as somebody reads it.
    pub(super) fn take(
        &self,
        part: &SharedMemoryRef,
        keep: impl Send + Sync + 'static,
    ) -> Result<TensorData, ServeError> {
        match &self.memory {
            Memory::System { object, offset, .. } => {
                self.read(object, offset + part.offset, part.byte_size).map(TensorData::Bytes)
            }
            Memory::Cuda(_) if part.byte_size == 0 => Ok(TensorData::Bytes(Bytes::new())),
            Memory::Cuda(tensor) => {
                let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
                let part = tensor.part(number(part.offset), number(part.byte_size), keep);
                let lost =
                    || ServeError::internal(format!("shared memory region '{}' has no such part", self.name));
                part.map(|part| TensorData::Held(held(part))).ok_or_else(lost)
            }
        }
    }

    fn read(&self, object: &File, start: u64, byte_size: u64) -> Result<Bytes, ServeError> {
        let name = &self.name;
        let length = usize::try_from(byte_size).unwrap_or(usize::MAX);
        let mut data: Vec<u8> = Vec::new();
        data.try_reserve_exact(length).map_err(|_| {
            ServeError::unavailable(format!("no memory for {length} bytes of shared memory region '{name}'"))
        })?;
        while data.len() < length {
            let at = start + data.len() as u64;
            // The vector may have got more room than was asked for.
            let room = length - data.len();
            let mut view = std::mem::take(&mut data);
            let spare = rustix::buffer::spare_capacity(&mut view);
            let read = rustix::io::pread(object, spare, at);
            data = view;
            match read {
                Ok(0) => {
                    return Err(ServeError::invalid(format!(
                        "shared memory region '{name}' is shorter than it was when it was registered"
                    )));
                }
                Ok(count) if count > room => data.truncate(length),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed("read", name, &error)),
            }
        }
        Ok(data.into())
    }

    /// Writes a tensor to a part that [`super::SharedMemory::find`] has allowed, and that is long enough.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), ServeError> {
        match &self.memory {
            Memory::System { object, offset: start, .. } => {
                let written = object.write_all_at(data, start + offset);
                written.map_err(|error| failed("written", &self.name, &error))
            }
            Memory::Cuda(tensor) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                tensor.write(offset, data).map_err(|error| failed("written", &self.name, &error))
            }
        }
    }
}

/// What is wrong with the key of a shared memory object, if anything.
pub(super) fn check_key(name: &str, key: &str) -> Result<(), ServeError> {
    if name.is_empty() {
        return Err(ServeError::invalid(
            "'region name' is necessary to register system shared memory region",
        ));
    }
    let bare = key.trim_start_matches('/');
    if bare.is_empty() || bare.contains(['/', '\0']) || matches!(bare, "." | "..") {
        return Err(ServeError::invalid(format!(
            "cannot register shared memory region '{name}' - invalid shm key '{key}'"
        )));
    }
    if bare.starts_with(RESERVED) {
        return Err(ServeError::invalid(format!(
            "cannot register shared memory region '{name}' with key '{key}' as the key contains the reserved prefix \
             '{RESERVED}'"
        )));
    }
    Ok(())
}

fn open(key: &str) -> Result<File, ServeError> {
    let path = format!("{OBJECTS}{}", key.trim_start_matches('/'));
    // A link would lead out of the directory, to whatever file the server may write; a pipe would make it wait.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(|error| {
        tracing::debug!("a shared memory object cannot be opened: {error}");
        ServeError::internal(format!("Unable to open shared memory region: '{key}'"))
    })
}

fn failed(what: &str, name: &str, error: &dyn std::fmt::Display) -> ServeError {
    ServeError::internal(format!("shared memory region '{name}' cannot be {what}: {error}"))
}
