//! Regions of shared memory that clients have registered: of the system, and of CUDA.
//!
//! A region of the system is read and written through its file, not through a mapping. Its client may change or shorten it at any
//! time: behind a mapping that would be a data race and a fatal signal, here it is at worst an error for that client.
//! The price is one copy of each tensor. A CUDA region is memory of a GPU that the provider of that GPU has opened: a tensor in
//! it goes to a model that reads it there without a copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use trireme_host::DeviceTensor;
use trireme_host::abi::StatusCode as Abi;
use trireme_protocol::{SharedMemoryRef, StatusCode, TensorData};

use crate::ensemble::held;
use crate::error::ServeError;
use crate::statistics::lock;

/// Where Linux has the objects that `shm_open` makes.
const OBJECTS: &str = "/dev/shm/";
/// Names of regions that backends keep for themselves begin so.
const RESERVED: &str = "triton_python_backend_shm_region_";
/// The most regions at a time: each holds a file open.
const MAX_REGIONS: usize = 4096;
/// The most bytes of one tensor, as for a message of gRPC: a region may be longer than the machine has memory.
const MAX_TENSOR: u64 = i32::MAX as u64;

/// What is registered.
#[derive(Debug)]
pub struct SharedMemory {
    allowed: bool,
    regions: Regions,
}

type Regions = Arc<Mutex<BTreeMap<String, Entry>>>;

#[derive(Debug)]
struct Entry {
    region: Arc<Region>,
    /// Unregistered while requests used it: it goes with the last of them.
    leaving: bool,
}

/// A region that a request uses, or a tensor of it that a model still reads: as long as this it stays registered.
#[derive(Debug)]
pub(crate) struct Used {
    /// Taken when it is dropped.
    region: Option<Arc<Region>>,
    regions: Regions,
}

impl Deref for Used {
    type Target = Region;

    fn deref(&self) -> &Region {
        match &self.region {
            Some(region) => region,
            None => unreachable!("it is taken in `drop` only"),
        }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut regions = lock(&self.regions);
        // Under the lock, so that the last one sees that it is.
        self.region = None;
        let left = sweep(&mut regions);
        drop(regions);
        // A driver may take its time to close them.
        drop(left);
    }
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

/// One registered region.
#[derive(Debug)]
pub(crate) struct Region {
    name: String,
    byte_size: u64,
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
        let object = open(key)?;
        let invalid =
            || ServeError::invalid(format!("failed to register shared memory region '{name}': invalid args"));
        let length = object.metadata().ok().filter(|file| file.is_file()).ok_or_else(invalid)?.len();
        let end = offset.checked_add(byte_size).ok_or_else(invalid)?;
        if byte_size == 0 || end > length {
            return Err(invalid());
        }
        let memory = Memory::System { object, key: key.to_owned(), offset };
        let region = Arc::new(Region { name: name.to_owned(), byte_size, memory });
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
        let region = Arc::new(Region { name: name.to_owned(), byte_size, memory: Memory::Cuda(opened) });
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
        elsewhere(move || memory.register_cuda(&name, &handle, device, byte_size)).await
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
        elsewhere(move || memory.unregister_cuda(name.as_deref())).await
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

/// Takes out what was unregistered and is no longer used, to be dropped when the table is not locked any more. The table
/// holds one reference; others are only made and dropped under its lock.
#[must_use]
fn sweep(regions: &mut BTreeMap<String, Entry>) -> Vec<Entry> {
    let left = |_: &String, entry: &mut Entry| entry.leaving && Arc::strong_count(&entry.region) == 1;
    regions.extract_if(.., left).map(|(_, entry)| entry).collect()
}

/// Does work that waits for a driver where it holds up no connection.
async fn elsewhere(work: impl FnOnce() -> Result<(), ServeError> + Send + 'static) -> Result<(), ServeError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| Err(ServeError::internal("the work on shared memory did not end")))
}

fn check_key(name: &str, key: &str) -> Result<(), ServeError> {
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

impl Used {
    /// A part that [`SharedMemory::find`] has allowed: a copy of it, or where it is on its GPU. A tensor there keeps the
    /// region for as long as somebody reads it.
    pub(crate) fn take(self: &Arc<Self>, part: &SharedMemoryRef) -> Result<TensorData, ServeError> {
        match &self.memory {
            Memory::System { object, offset, .. } => {
                self.read(object, offset + part.offset, part.byte_size).map(TensorData::Bytes)
            }
            Memory::Cuda(_) if part.byte_size == 0 => Ok(TensorData::Bytes(Bytes::new())),
            Memory::Cuda(tensor) => {
                let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
                let part = tensor.part(number(part.offset), number(part.byte_size), Arc::clone(self));
                let lost =
                    || ServeError::internal(format!("shared memory region '{}' has no such part", self.name));
                part.map(|part| TensorData::Held(held(part))).ok_or_else(lost)
            }
        }
    }
}

impl Region {
    pub(crate) fn is_cuda(&self) -> bool {
        matches!(self.memory, Memory::Cuda(_))
    }

    fn status(&self) -> Option<RegionStatus> {
        let Memory::System { key, offset, .. } = &self.memory else { return None };
        let (name, key) = (self.name.clone(), key.clone());
        Some(RegionStatus { name, key, offset: *offset, byte_size: self.byte_size })
    }

    fn cuda_status(&self) -> Option<CudaRegionStatus> {
        let Memory::Cuda(tensor) = &self.memory else { return None };
        let (name, device) = (self.name.clone(), tensor.device());
        Some(CudaRegionStatus { name, device, byte_size: self.byte_size })
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

    /// Writes a tensor to a part that [`SharedMemory::find`] has allowed, and that is long enough.
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

fn failed(what: &str, name: &str, error: &dyn std::fmt::Display) -> ServeError {
    ServeError::internal(format!("shared memory region '{name}' cannot be {what}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A shared memory object that is unlinked at the end of its test.
    struct Object(String);

    impl Object {
        fn new(test: &str, length: u64) -> Self {
            let key = format!("/trireme_unit_{}_{test}", std::process::id());
            let file = File::create(format!("/dev/shm{key}")).unwrap();
            file.set_len(length).unwrap();
            file.write_all_at(&[7; 4], 4).unwrap();
            Self(key)
        }
    }

    impl Drop for Object {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(format!("/dev/shm{}", self.0));
        }
    }

    fn part(offset: u64, byte_size: u64) -> SharedMemoryRef {
        SharedMemoryRef { region: "r".to_owned(), offset, byte_size }
    }

    fn read(region: &Arc<Used>, offset: u64, byte_size: u64) -> Result<Bytes, ServeError> {
        match region.take(&part(offset, byte_size))? {
            TensorData::Bytes(bytes) => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bounds_hold_at_registration_and_at_use() {
        let object = Object::new("bounds", 64);
        let memory = SharedMemory::new(true);
        let invalid = "failed to register shared memory region 'r': invalid args";
        for (offset, size) in [(0, 65), (64, 1), (u64::MAX, 1), (1, u64::MAX), (0, 0)] {
            assert_eq!(memory.register("r", &object.0, offset, size).unwrap_err().message, invalid);
        }
        memory.register("r", &object.0, 4, 60).unwrap();
        assert_eq!(
            memory.register("r", &object.0, 0, 1).unwrap_err().message,
            "shared memory region 'r' already in manager"
        );
        let refusal = |offset, size| memory.find(&part(offset, size)).unwrap_err().message;
        assert_eq!(refusal(60, 0), "Invalid offset for shared memory region: 'r'");
        assert_eq!(refusal(59, 2), "Invalid offset + byte size for shared memory region: 'r'");
        assert_eq!(refusal(1, u64::MAX), "Invalid offset + byte size for shared memory region: 'r'");
        let region = memory.find(&part(0, 60)).unwrap();
        assert_eq!(read(&region, 0, 5).unwrap(), &[7, 7, 7, 7, 0][..]);
        region.write(58, &[1, 2]).unwrap();
        assert_eq!(read(&region, 57, 3).unwrap(), &[0, 1, 2][..]);
    }

    #[test]
    fn a_client_that_shortens_its_object_gets_an_error() {
        let object = Object::new("short", 64);
        let memory = SharedMemory::new(true);
        memory.register("r", &object.0, 0, 64).unwrap();
        let file = File::options().write(true).open(format!("/dev/shm{}", object.0)).unwrap();
        file.set_len(8).unwrap();
        let region = memory.find(&part(0, 64)).unwrap();
        let error = read(&region, 0, 64).unwrap_err();
        assert!(error.message.contains("is shorter than it was"), "{error}");
    }

    #[test]
    fn a_link_is_not_followed_and_a_directory_is_no_object() {
        let object = Object::new("target", 64);
        let link = Object(format!("/trireme_unit_{}_link", std::process::id()));
        std::os::unix::fs::symlink(format!("/dev/shm{}", object.0), format!("/dev/shm{}", link.0)).unwrap();
        let memory = SharedMemory::new(true);
        let error = memory.register("r", &link.0, 0, 64).unwrap_err();
        assert_eq!(error.message, format!("Unable to open shared memory region: '{}'", link.0));
        let directory = format!("trireme_unit_{}_directory", std::process::id());
        std::fs::create_dir(format!("/dev/shm/{directory}")).unwrap();
        let error = memory.register("r", &directory, 0, 64).unwrap_err();
        std::fs::remove_dir(format!("/dev/shm/{directory}")).unwrap();
        assert_eq!(error.message, format!("Unable to open shared memory region: '{directory}'"));
    }

    #[test]
    fn a_region_in_use_goes_with_its_last_request() {
        let object = Object::new("use", 64);
        let memory = SharedMemory::new(true);
        memory.register("r", &object.0, 0, 64).unwrap();
        let used = memory.find(&part(0, 8)).unwrap();
        memory.unregister(None).unwrap();
        // Listed and its name taken, but of no use for others.
        assert_eq!(memory.status(None).unwrap().len(), 1);
        assert_eq!(memory.find(&part(0, 8)).unwrap_err().status, StatusCode::NotFound);
        assert!(memory.register("r", &object.0, 0, 64).is_err());
        used.write(0, &[9]).unwrap();
        let (region, also) = (Arc::downgrade(used.region.as_ref().unwrap()), Arc::clone(&used));
        drop(used);
        assert_eq!(region.strong_count(), 2);
        drop(also);
        // At once, not with the next call.
        assert_eq!(region.strong_count(), 0);
        assert_eq!(memory.status(None).unwrap(), []);
        assert_eq!(
            memory.status(Some("r")).unwrap_err().message,
            "Unable to find system shared memory region: 'r'"
        );
        memory.register("r", &object.0, 0, 64).unwrap();
        memory.unregister(Some("other")).unwrap();
        assert_eq!(memory.status(Some("r")).unwrap()[0].byte_size, 64);
    }

    #[test]
    fn keys_that_are_none() {
        let memory = SharedMemory::new(true);
        for key in ["", "/", "//", "/a/b", "..", "/."] {
            let error = memory.register("r", key, 0, 1).unwrap_err();
            assert_eq!(
                error.message,
                format!("cannot register shared memory region 'r' - invalid shm key '{key}'")
            );
        }
        let reserved = memory.register("r", "//triton_python_backend_shm_region_1", 0, 1).unwrap_err();
        assert!(reserved.message.contains("reserved prefix"), "{reserved}");
        let missing = memory.register("r", "/trireme_no_such_object", 0, 1).unwrap_err();
        assert_eq!(missing.message, "Unable to open shared memory region: '/trireme_no_such_object'");
        assert_eq!(missing.status, StatusCode::Internal);
        assert!(memory.register("", "/x", 0, 1).is_err());
    }

    #[test]
    fn nothing_is_registered_unless_it_is_allowed() {
        let memory = SharedMemory::new(false);
        let calls = [
            memory.register("r", "/x", 0, 1),
            memory.unregister(None),
            memory.register_cuda("r", &[0; 64], 0, 8),
            memory.unregister_cuda(None),
        ];
        for call in calls {
            let error = call.unwrap_err();
            assert_eq!(error.status, StatusCode::Unsupported);
            assert!(error.message.starts_with("Client shared memory is disabled"));
        }
        assert_eq!(memory.status(None).unwrap(), []);
        let cuda = SharedMemory::new(true).register_cuda("r", &[0; 64], 0, 8).unwrap_err();
        assert_eq!(cuda.message, "failed to register CUDA shared memory region: 'r', GPUs not supported");
    }
}
