//! Regions of shared memory that clients have registered: of the system, and of CUDA.
//!
//! A region of the system is read and written through its file, not through a mapping. Its client may change or shorten it at any
//! time: behind a mapping that would be a data race and a fatal signal, here it is at worst an error for that client.
//! The price is one copy of each tensor. A CUDA region is memory of a GPU that the provider of that GPU has opened: a tensor in
//! it goes to a model that reads it there without a copy.

mod region;
mod sending;
#[cfg(test)]
mod tests;
mod used;
mod waiting;

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use trireme_host::abi::StatusCode as Abi;
use trireme_protocol::{SharedMemoryRef, StatusCode};

use crate::error::ServeError;
use crate::statistics::lock;
use region::{Region, check_key};
use used::{Entry, Regions, sweep};

pub(crate) use used::Used;
pub(crate) use waiting::elsewhere;

/// The most regions at a time: each holds a file open.
const MAX_REGIONS: usize = 4096;
/// The most bytes of one tensor, as for a message of gRPC: a region may be longer than the machine has memory.
const MAX_TENSOR: u64 = i32::MAX as u64;

/// Said if work on a region panicked.
const UNENDED: &str = "the work on shared memory did not end";

/// What is registered.
#[derive(Debug)]
pub struct SharedMemory {
    allowed: bool,
    regions: Regions,
}

/// A region as the status calls list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionStatus {
    /// Its registered name.
    pub name: String,
    /// The name of the shared memory object.
    pub key: String,
    /// Where the region begins in the object, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub byte_size: u64,
}

/// A CUDA region as the status calls list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaRegionStatus {
    /// Its registered name.
    pub name: String,
    /// The GPU that has it.
    pub device: i32,
    /// Its length in bytes.
    pub byte_size: u64,
}

impl SharedMemory {
    /// No regions; unless `allowed`, none can be registered.
    pub fn new(allowed: bool) -> Self {
        Self { allowed, regions: Regions::default() }
    }

    /// Registers a part of a shared memory object under a name.
    ///
    /// # Errors
    /// UNSUPPORTED if it is not allowed at all; otherwise what is wrong with the name, the key or the bounds.
    pub fn register(&self, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<(), ServeError> {
        self.check_allowed()?;
        check_key(name, key)?;
        let mut regions = self.room_for(name)?;
        let region = Arc::new(Region::of_object(name, key, offset, byte_size)?);
        regions.insert(name.to_owned(), Entry { region, leaving: false });
        Ok(())
    }

    /// Registers memory of a GPU under a name: `handle` is that of the client's allocation, from whose beginning it is
    /// counted.
    ///
    /// # Errors
    /// UNSUPPORTED if it is not allowed at all; otherwise what is wrong with the name, the device or the handle.
    pub fn register_cuda(
        &self,
        name: &str,
        handle: &[u8],
        device: i64,
        byte_size: u64,
    ) -> Result<(), ServeError> {
        self.check_allowed()?;
        if name.is_empty() {
            return Err(ServeError::invalid(
                "'region name' is necessary to register cuda shared memory region",
            ));
        }
        drop(self.room_for(name)?);
        let text = |why: &str| format!("failed to register CUDA shared memory region: '{name}', {why}");
        let failed = |why: &str| ServeError::invalid(text(why));
        let device = i32::try_from(device).map_err(|_| failed("there is no such GPU"))?;
        if byte_size == 0 {
            return Err(failed("invalid args"));
        }
        // Not under the lock: a driver may take its time.
        let opened =
            trireme_host::open_shared(device, handle, byte_size).map_err(|status| match status.code {
                Abi::UNSUPPORTED => failed("GPUs not supported"),
                Abi::UNAVAILABLE => ServeError::unavailable(text(&status.message)),
                Abi::INTERNAL => ServeError::internal(text(&status.message)),
                _ => failed(&status.message),
            })?;
        let region = Arc::new(Region::of_device(name, opened, byte_size));
        // Somebody may have been faster. Then what was opened is closed, behind the lock.
        let mut regions = self.room_for(name)?;
        regions.insert(name.to_owned(), Entry { region, leaving: false });
        Ok(())
    }

    /// As [`Self::register_cuda`], on a thread for such work.
    ///
    /// # Errors
    /// As there.
    pub async fn register_cuda_async(
        self: &Arc<Self>,
        name: &str,
        handle: Vec<u8>,
        device: i64,
        byte_size: u64,
    ) -> Result<(), ServeError> {
        let (memory, name) = (Arc::clone(self), name.to_owned());
        elsewhere(UNENDED, move || memory.register_cuda(&name, &handle, device, byte_size)).await
    }

    /// The table, if another region of this name fits in.
    fn room_for(&self, name: &str) -> Result<MutexGuard<'_, BTreeMap<String, Entry>>, ServeError> {
        let regions = lock(&self.regions);
        if regions.contains_key(name) {
            let text = format!("shared memory region '{name}' already in manager");
            return Err(ServeError::new(StatusCode::AlreadyExists, text));
        }
        if regions.len() >= MAX_REGIONS {
            return Err(ServeError::unavailable(format!(
                "failed to register shared memory region '{name}': there are {MAX_REGIONS} regions already"
            )));
        }
        Ok(regions)
    }

    /// Unregisters a region, or all; one that a request uses goes when the request ends. A name that nobody has
    /// registered is no error.
    ///
    /// # Errors
    /// UNSUPPORTED if shared memory is not allowed.
    pub fn unregister(&self, name: Option<&str>) -> Result<(), ServeError> {
        self.leave(name, false)
    }

    /// As [`Self::unregister`], of CUDA regions.
    ///
    /// # Errors
    /// UNSUPPORTED if shared memory is not allowed.
    pub fn unregister_cuda(&self, name: Option<&str>) -> Result<(), ServeError> {
        self.leave(name, true)
    }

    /// As [`Self::unregister_cuda`], on a thread for such work.
    ///
    /// # Errors
    /// As there.
    pub async fn unregister_cuda_async(self: &Arc<Self>, name: Option<&str>) -> Result<(), ServeError> {
        let (memory, name) = (Arc::clone(self), name.map(str::to_owned));
        elsewhere(UNENDED, move || memory.unregister_cuda(name.as_deref())).await
    }

    fn leave(&self, name: Option<&str>, cuda: bool) -> Result<(), ServeError> {
        self.check_allowed()?;
        let mut regions = lock(&self.regions);
        for (known, entry) in regions.iter_mut().filter(|(_, entry)| entry.region.is_cuda() == cuda) {
            entry.leaving |= name.is_none_or(|name| name == known);
        }
        let left = sweep(&mut regions);
        drop(regions);
        // A driver may take its time to close them.
        drop(left);
        Ok(())
    }

    /// What is registered, all or one.
    ///
    /// # Errors
    /// NOT_FOUND for a name that nobody has registered.
    pub fn status(&self, name: Option<&str>) -> Result<Vec<RegionStatus>, ServeError> {
        self.listed(name, ("system", "CUDA"), Region::status)
    }

    /// What is registered of CUDA, all or one.
    ///
    /// # Errors
    /// NOT_FOUND for a name that nobody has registered.
    pub fn cuda_status(&self, name: Option<&str>) -> Result<Vec<CudaRegionStatus>, ServeError> {
        self.listed(name, ("CUDA", "system"), Region::cuda_status)
    }

    fn listed<S>(
        &self,
        name: Option<&str>,
        (kind, other): (&str, &str),
        status: impl Fn(&Region) -> Option<S>,
    ) -> Result<Vec<S>, ServeError> {
        let regions = lock(&self.regions);
        let Some(name) = name else {
            return Ok(regions.values().filter_map(|entry| status(&entry.region)).collect());
        };
        let found = regions.get(name).ok_or_else(|| {
            let kind = kind.to_ascii_lowercase();
            ServeError::not_found(format!("Unable to find {kind} shared memory region: '{name}'"))
        })?;
        let other = || {
            ServeError::not_found(format!(
                "The region named '{name}' is registered as {other} shared memory, not {kind} shared memory"
            ))
        };
        status(&found.region).map(|status| vec![status]).ok_or_else(other)
    }

    /// The region that a request names, if the part lies within it.
    ///
    /// # Errors
    /// NOT_FOUND for the name, INVALID_ARG for the bounds.
    pub(crate) fn find(&self, part: &SharedMemoryRef) -> Result<Arc<Used>, ServeError> {
        let name = &part.region;
        let regions = lock(&self.regions);
        let entry = regions
            .get(name)
            .filter(|entry| !entry.leaving)
            .ok_or_else(|| ServeError::not_found(format!("Unable to find shared memory region: '{name}'")))?;
        let length = entry.region.byte_size;
        if part.offset >= length {
            return Err(ServeError::invalid(format!("Invalid offset for shared memory region: '{name}'")));
        }
        if part.offset.checked_add(part.byte_size).is_none_or(|end| end > length) {
            return Err(ServeError::invalid(format!(
                "Invalid offset + byte size for shared memory region: '{name}'"
            )));
        }
        if part.byte_size > MAX_TENSOR {
            return Err(ServeError::invalid(format!(
                "{} bytes of shared memory region '{name}' exceed the maximum allowed value of {MAX_TENSOR} bytes",
                part.byte_size
            )));
        }
        let region = Some(Arc::clone(&entry.region));
        Ok(Arc::new(Used { region, regions: Arc::clone(&self.regions) }))
    }

    /// Whether a name stands for memory of a GPU.
    pub(crate) fn is_cuda(&self, name: &str) -> bool {
        lock(&self.regions).get(name).is_some_and(|entry| entry.region.is_cuda())
    }

    /// Whether clients may register any.
    ///
    /// # Errors
    /// UNSUPPORTED, with the flag that allows it.
    pub fn check_allowed(&self) -> Result<(), ServeError> {
        if self.allowed {
            return Ok(());
        }
        Err(ServeError::unsupported(
            "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable.",
        ))
    }
}
