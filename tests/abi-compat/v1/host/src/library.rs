use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::os::unix::{Library as Dl, RTLD_LOCAL, RTLD_NOW};
use sha2::{Digest, Sha256};
use trireme_abi::{
    ABI_MAJOR, BackendInfo, BackendInfoPtr, BackendVtable, BackendVtablePtr, InstanceVtable,
    InstanceVtablePtr, LAYOUT_TAG, MemoryKind, ModelVtable, ModelVtablePtr, PROBE_MAGIC, PROBE_SYMBOL,
    PanicStrategy, Probe,
};

use crate::error::LoadError;
use crate::{elf, layout};

/// Names longer than this are not read further.
const MAX_NAME: usize = 256;

/// How libraries are loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where a changed build is copied to, named by its hash, so that the dynamic linker does not hand out the old image
    /// again; a temporary directory if absent.
    pub cache_dir: Option<PathBuf>,
}

/// What a library says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Runs on a CPU.
    pub cpu: bool,
    /// Runs on a GPU.
    pub gpu: bool,
    /// Whether `instance_group.kind` chooses the device.
    pub kind_chooses_device: bool,
    /// How many requests an instance may hold unanswered after `execute` has returned; 0: it does not count.
    pub max_in_flight: u32,
    /// Whether its instances on a GPU may be given inputs in that GPU's memory.
    pub reads_gpu: bool,
}

/// A backend library that was loaded and checked. It stays loaded until the process ends.
pub struct Library {
    name: String,
    version: String,
    sdk: String,
    info: LibraryInfo,
    has_layout_record: bool,
    // Pointers, not references: a table may be shorter than our type, so fields are read one by one.
    pub(crate) backend: BackendVtablePtr,
    pub(crate) model: ModelVtablePtr,
    pub(crate) instance: InstanceVtablePtr,
}

#[derive(Default)]
struct Images {
    by_hash: HashMap<[u8; 32], Arc<Library>>,
    /// Paths that an image was loaded from: the linker will hand out that image again, whatever is there now.
    used: HashMap<PathBuf, [u8; 32]>,
    copies: Option<tempfile::TempDir>,
}

/// The linker's images are the process's, so this list is too.
static IMAGES: OnceLock<Mutex<Images>> = OnceLock::new();

impl Library {
    /// Loads the library at `path`, or finds it among the loaded ones. `expected_name` is what its probe must say.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the file.
    pub fn open(path: &Path, expected_name: &str, options: &LoadOptions) -> Result<Arc<Self>, LoadError> {
        let unreadable = |error| LoadError::Unreadable { path: path.to_owned(), error };
        let path = path.canonicalize().map_err(unreadable)?;
        let content = std::fs::read(&path).map_err(unreadable)?;
        let hash: [u8; 32] = Sha256::digest(&content).into();
        let mut images = IMAGES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = images.by_hash.get(&hash) {
            library.check_name(&path, expected_name)?;
            return Ok(Arc::clone(library));
        }
        elf::check_whole(&content).map_err(|reason| LoadError::NotALibrary { path: path.clone(), reason })?;
        // The first image of a path is loaded from there, so that debuggers find it; later ones from a copy.
        let load_path = match images.used.get(&path) {
            None => path.clone(),
            Some(_) => copy(&mut images, options, &hash, &content).map_err(unreadable)?,
        };
        // SAFETY: loading runs the initialisers of the library: it is code that the operator has put there.
        let dl = unsafe { Dl::open(Some(&load_path), RTLD_NOW | RTLD_LOCAL) };
        let dl = dl.map_err(|error| LoadError::NotALibrary {
            path: path.clone(),
            reason: crate::library::short(&error, &load_path),
        })?;
        images.used.insert(load_path, hash);
        // Never unloaded: whether that would be sound depends on thread-local destructors and values in flight.
        let dl: &'static Dl = Box::leak(Box::new(dl));
        // SAFETY: the symbol is a static of type `Probe`; a library that lies about that cannot be helped.
        let probe = unsafe { dl.get::<*const Probe>(PROBE_SYMBOL.as_bytes()) };
        let probe = probe.map_err(|_| LoadError::NoProbe { path: path.clone() })?.into_raw().cast::<Probe>();
        // SAFETY: found by name in a library that stays loaded.
        let library = Arc::new(unsafe { Self::from_probe(probe.cast_const(), &path)? });
        library.check_name(&path, expected_name)?;
        images.by_hash.insert(hash, Arc::clone(&library));
        Ok(library)
    }

    /// The backend that is linked into this program, as test programs do: what the SDK's `export_backend!` exports. It
    /// goes through the same checks as one that is opened.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the probe.
    ///
    /// # Safety
    /// `probe` tells the truth about the functions and texts that it names.
    pub unsafe fn from_static(probe: &'static Probe) -> Result<Arc<Self>, LoadError> {
        // SAFETY: a static of this program; the rest by this function's contract.
        unsafe { Self::from_probe(probe, Path::new("this program")) }.map(Arc::new)
    }

    /// # Safety
    /// `probe` is not null and names a static of a library that is never unloaded.
    unsafe fn from_probe(probe: *const Probe, path: &Path) -> Result<Self, LoadError> {
        let refuse = |reason: String| LoadError::Probe { path: path.to_owned(), reason };
        // The magic and the size come first, so that no byte is read that may not be there.
        // SAFETY: a symbol of this name has at least the first fields, in every version of the ABI.
        let (magic, size) = unsafe { ((*probe).magic, (*probe).struct_size) };
        if magic != PROBE_MAGIC {
            return Err(refuse(format!(
                "its probe begins with {magic:?}, which is not the magic of a Trireme backend"
            )));
        }
        if (size as usize) < size_of::<Probe>() {
            return Err(refuse(format!(
                "its probe has {size} bytes, at least {} are needed",
                size_of::<Probe>()
            )));
        }
        // SAFETY: the size was looked at; the shape of a probe never changes.
        let probe = unsafe { &*probe };
        if probe.abi_major != ABI_MAJOR {
            return Err(refuse(format!(
                "it was built for ABI version {}, this server has version {ABI_MAJOR}: build it with the matching SDK",
                probe.abi_major
            )));
        }
        if probe.panic == PanicStrategy::ABORT {
            return Err(refuse(
                "it was built with panic = \"abort\", so a panic would end the server".to_owned(),
            ));
        }
        if probe.layout_tag == LAYOUT_TAG {
            let Some(layout) = probe.layout else {
                return Err(refuse("its probe names a layout record but has none".to_owned()));
            };
            // SAFETY: the tag says that this returns the record that abi_stable's check reads.
            let theirs = unsafe { &*layout().cast::<abi_stable::type_layout::TypeLayout>() };
            layout::check(theirs)
                .map_err(|difference| LoadError::Layout { path: path.to_owned(), difference })?;
        } else if probe.layout_tag != [0; 16] {
            return Err(refuse("its layout record is of a kind that this server cannot read".to_owned()));
        }
        if probe.vtable.0.is_null() {
            return Err(refuse("its probe has no functions".to_owned()));
        }
        // SAFETY: not null, a static of the library; `struct_size` is looked at before any other field.
        let (backend, model, instance) = unsafe {
            let backend = vtable::<BackendVtable>(probe.vtable.0, "backend").map_err(refuse)?;
            let model = vtable::<ModelVtable>((*backend).model.0, "model").map_err(refuse)?;
            let instance = vtable::<InstanceVtable>((*backend).instance.0, "instance").map_err(refuse)?;
            (BackendVtablePtr(backend), ModelVtablePtr(model), InstanceVtablePtr(instance))
        };
        let mut info = default_info();
        // SAFETY: `info` is allowed before `create`; the struct says how far it reaches.
        unsafe { ((*backend.0).info)(BackendInfoPtr(&mut info)) };
        // SAFETY: terminated statics of the library.
        let (name, version, sdk) = unsafe { (c_text(probe.name), c_text(probe.version), c_text(probe.sdk)) };
        let info = LibraryInfo {
            cpu: info.devices & 1 != 0,
            gpu: info.devices & 2 != 0,
            kind_chooses_device: info.kind_chooses_device != 0,
            max_in_flight: info.max_in_flight,
            reads_gpu: info.input_kinds >> MemoryKind::GPU.0 & 1 == 1,
        };
        let has_layout_record = probe.layout_tag == LAYOUT_TAG;
        Ok(Self { name, version, sdk, info, has_layout_record, backend, model, instance })
    }

    fn check_name(&self, path: &Path, expected: &str) -> Result<(), LoadError> {
        if self.name == expected {
            return Ok(());
        }
        let reason = format!("it is the backend '{}', expected was '{expected}'", self.name);
        Err(LoadError::Probe { path: path.to_owned(), reason })
    }

    /// The backend's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The backend's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it was built with.
    pub fn sdk(&self) -> &str {
        &self.sdk
    }

    /// Whether its layouts were compared with ours; otherwise only the sizes of its tables were.
    pub fn has_layout_record(&self) -> bool {
        self.has_layout_record
    }

    /// What it can do.
    pub fn info(&self) -> LibraryInfo {
        self.info
    }
}

/// What a backend is that says nothing.
fn default_info() -> BackendInfo {
    BackendInfo {
        struct_size: size_of::<BackendInfo>(),
        devices: 1,
        kind_chooses_device: 1,
        max_in_flight: 0,
        reserved: 0,
        // What a backend that says nothing of it leaves.
        input_kinds: 1 << MemoryKind::CPU.0,
    }
}

/// The functions that every backend of this major version has: a table that is smaller was cut before they began.
trait Vtable {
    const MIN_SIZE: usize;
    /// Which word of it is the first function.
    const FIRST: usize;
}

macro_rules! vtables {
    ($($ty:ident from $first:ident to $last:ident;)*) => {$(
        impl Vtable for $ty {
            const FIRST: usize = std::mem::offset_of!($ty, $first) / size_of::<usize>();
            const MIN_SIZE: usize = {
                assert!(std::mem::offset_of!($ty, struct_size) == 0);
                std::mem::offset_of!($ty, $last) + size_of::<usize>()
            };
        }
    )*};
}

vtables! {
    BackendVtable from info to load;
    ModelVtable from create_instance to unload;
    InstanceVtable from execute to destroy;
}

/// # Safety
/// `table` is null or names a static that begins with its size.
unsafe fn vtable<T: Vtable>(table: *const T, what: &str) -> Result<*const T, String> {
    if table.is_null() {
        return Err(format!("it has no {what} functions"));
    }
    // SAFETY: by this function's contract every table begins with its size.
    let size = unsafe { table.cast::<usize>().read() };
    if size < T::MIN_SIZE {
        return Err(format!(
            "its {what} functions take {size} bytes, at least {} are needed: it was built for an older ABI",
            T::MIN_SIZE
        ));
    }
    // What a C compiler puts where an author gave nothing. Every field behind the size is an address; the tables among
    // them are looked at by themselves.
    for field in T::FIRST..T::MIN_SIZE / size_of::<usize>() {
        // SAFETY: the table reaches that far.
        if unsafe { table.cast::<usize>().add(field).read() } == 0 {
            let offset = field * size_of::<usize>();
            return Err(format!("its {what} functions have none at offset {offset}, where one is needed"));
        }
    }
    Ok(table)
}

/// # Safety
/// `text` is null or terminated.
unsafe fn c_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    text.chars().take(MAX_NAME).collect()
}

/// The dynamic linker's message without the path, which our sentence has already.
fn short(error: &libloading::Error, path: &Path) -> String {
    let text = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    text.replace(&format!("{}: ", path.display()), "")
}

fn copy(
    images: &mut Images,
    options: &LoadOptions,
    hash: &[u8; 32],
    content: &[u8],
) -> std::io::Result<PathBuf> {
    let directory = match &options.cache_dir {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            directory.clone()
        }
        None => match &images.copies {
            Some(copies) => copies.path().to_owned(),
            None => images
                .copies
                .insert(tempfile::Builder::new().prefix("trireme-backends-").tempdir()?)
                .path()
                .to_owned(),
        },
    };
    let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join(format!("{name}.so"));
    // Written beside and renamed: a reader never sees half a library.
    let mut file = tempfile::NamedTempFile::new_in(&directory)?;
    std::io::Write::write_all(&mut file, content)?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(path)
}
