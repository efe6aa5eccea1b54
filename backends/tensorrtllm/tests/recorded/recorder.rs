//! The GPU of these tests: `recorder.c`, built once and opened under the names of CUDA's libraries.

use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};

use libloading::{Library, Symbol};

const SOURCE: &str = include_str!("recorder.c");

/// CUDA's codes that a test lets a call answer.
pub(crate) const OUT_OF_MEMORY: i32 = 2;
pub(crate) const LAUNCH_FAILED: i32 = 719;

/// The only user of the GPU in this process.
pub(crate) struct Recorder {
    libraries: &'static [Library; 3],
    _turn: MutexGuard<'static, ()>,
}

impl Recorder {
    /// An H100 with 80 GiB, nothing recorded.
    pub(crate) fn start() -> Self {
        static LIBRARIES: OnceLock<[Library; 3]> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Libraries that are there already are found by their names.
        let libraries = LIBRARIES.get_or_init(|| {
            let folder = folder();
            ["libcuda.so", "libcublasLt.so", "libnvrtc.so"]
                // SAFETY: they have no code of their own that runs when they are opened.
                .map(|name| unsafe { Library::new(folder.join(name)) }.unwrap())
        });
        let recorder = Self { libraries, _turn: turn };
        recorder.call("recorder_reset");
        recorder
    }

    fn symbol<F>(&self, name: &str) -> Symbol<'static, F> {
        // SAFETY: every type that is asked for is that of `recorder.c`.
        unsafe { self.libraries[0].get(name.as_bytes()) }.unwrap()
    }

    pub(crate) fn call(&self, name: &str) {
        let function: Symbol<'_, unsafe extern "C" fn()> = self.symbol(name);
        // SAFETY: a function without arguments.
        unsafe { function() }
    }

    /// What was launched since the last time, a line each.
    pub(crate) fn take(&self) -> String {
        let pending: Symbol<'_, unsafe extern "C" fn() -> usize> = self.symbol("recorder_pending");
        let take: Symbol<'_, unsafe extern "C" fn(*mut u8)> = self.symbol("recorder_take");
        // SAFETY: the buffer has the size that was asked for; nobody records meanwhile.
        unsafe {
            let mut text = vec![0; pending()];
            take(text.as_mut_ptr());
            String::from_utf8(text).unwrap()
        }
    }

    /// Lets a call fail after `after` more of it; with `stays`, every call from then on.
    pub(crate) fn fail(&self, call: &str, after: usize, code: i32, stays: bool) {
        let fail: Symbol<'_, unsafe extern "C" fn(*const c_char, c_int, c_int, c_int)> =
            self.symbol("recorder_fail");
        let call = CString::new(call).unwrap();
        // SAFETY: the text ends with a zero and is copied.
        unsafe { fail(call.as_ptr(), after as c_int, code, c_int::from(stays)) }
    }

    /// Microseconds of launches whose kernel begins with `prefix`; 1 otherwise.
    pub(crate) fn cost(&self, prefix: &str, microseconds: f64) {
        let cost: Symbol<'_, unsafe extern "C" fn(*const c_char, f64)> = self.symbol("recorder_cost");
        let prefix = CString::new(prefix).unwrap();
        // SAFETY: the text ends with a zero and is copied.
        unsafe { cost(prefix.as_ptr(), microseconds) }
    }

    /// Lets of 40 such launches each take so many microseconds longer than the one before.
    pub(crate) fn disturb(&self, prefix: &str, microseconds: f64) {
        let disturb: Symbol<'_, unsafe extern "C" fn(*const c_char, f64)> = self.symbol("recorder_disturb");
        let prefix = CString::new(prefix).unwrap();
        // SAFETY: the text ends with a zero and is copied.
        unsafe { disturb(prefix.as_ptr(), microseconds) }
    }

    pub(crate) fn set_memory(&self, bytes: usize) {
        let memory: Symbol<'_, unsafe extern "C" fn(usize)> = self.symbol("recorder_memory");
        // SAFETY: a number.
        unsafe { memory(bytes) }
    }

    pub(crate) fn set_capability(&self, major: i32, minor: i32) {
        let set: Symbol<'_, unsafe extern "C" fn(c_int, c_int)> = self.symbol("recorder_capability");
        // SAFETY: numbers.
        unsafe { set(major, minor) }
    }

    fn set(&self, name: &str, value: i32) {
        let set: Symbol<'_, unsafe extern "C" fn(c_int)> = self.symbol(name);
        // SAFETY: a number.
        unsafe { set(value) }
    }

    /// CUDA's version that the driver has: 13000 for 13.0.
    pub(crate) fn set_driver(&self, version: i32) {
        self.set("recorder_driver", version);
    }

    pub(crate) fn set_devices(&self, count: i32) {
        self.set("recorder_devices", count);
    }

    pub(crate) fn set_cublaslt(&self, version: i32) {
        self.set("recorder_lt_version", version);
    }

    fn number(&self, name: &str) -> i32 {
        let get: Symbol<'_, unsafe extern "C" fn() -> c_int> = self.symbol(name);
        // SAFETY: a function without arguments.
        unsafe { get() }
    }

    /// Whether the call that was to fail has done so.
    pub(crate) fn has_failed(&self) -> bool {
        self.number("recorder_failed") != 0
    }

    /// Modules that NVRTC has compiled in this process.
    pub(crate) fn compiled(&self) -> i32 {
        self.number("recorder_compiled")
    }

    /// Allocations, streams, events, graphs and descriptors that nobody has freed.
    pub(crate) fn held(&self) -> i32 {
        self.number("recorder_held")
    }

    /// Most bytes of the GPU that were taken at a time.
    pub(crate) fn most_taken(&self) -> usize {
        let get: Symbol<'_, unsafe extern "C" fn() -> usize> = self.symbol("recorder_most_taken");
        // SAFETY: a function without arguments.
        unsafe { get() }
    }
}

/// The folder with the three libraries, for processes that look for them on `LD_LIBRARY_PATH`.
pub(crate) fn folder() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = all.join(format!("recorder-{:016x}", hasher.finish()));
    if !folder.is_dir() {
        let own = all.join(format!("recorder-{}", std::process::id()));
        build(&own);
        // Another process may have been faster; then its folder is as good.
        if fs::rename(&own, &folder).is_err() {
            let _ = fs::remove_dir_all(&own);
        }
    }
    folder
}

fn build(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let cc = |name: &str, arguments: &[&str]| {
        let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        cc.current_dir(folder).args(["-shared", "-fPIC", "-o", name, &format!("-Wl,-soname,{name}")]);
        assert!(cc.args(arguments).status().unwrap().success(), "{name}");
    };
    fs::write(folder.join("recorder.c"), SOURCE).unwrap();
    cc("libcuda.so", &["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "recorder.c"]);
    // The others are empty and need the first, where their symbols are then found.
    for name in ["libcublasLt.so", "libnvrtc.so"] {
        cc(name, &["-Wl,--no-as-needed", "libcuda.so"]);
    }
}
