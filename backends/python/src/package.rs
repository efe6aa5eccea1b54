//! Our half of the process: Python files that are part of this library and are written out for the interpreter.

use std::fs;
use std::io;
use std::path::PathBuf;

use tempfile::TempDir;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../python/", $name)))),*]
    };
}

const FILES: [(&str, &str); 17] = files![
    "start.py",
    "triton_python_backend_utils.py",
    "trireme_python/__init__.py",
    "trireme_python/calls.py",
    "trireme_python/config.py",
    "trireme_python/dlpack.py",
    "trireme_python/errors.py",
    "trireme_python/frames.py",
    "trireme_python/gpu.py",
    "trireme_python/inference.py",
    "trireme_python/link.py",
    "trireme_python/memory.py",
    "trireme_python/models.py",
    "trireme_python/services.py",
    "trireme_python/tensor.py",
    "trireme_python/types.py",
    "trireme_python/worker.py",
];

/// The files, for as long as this lives.
pub(crate) struct Package(TempDir);

impl Package {
    pub(crate) fn write() -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("trireme-python-").tempdir()?;
        fs::create_dir(dir.path().join("trireme_python"))?;
        for (name, text) in FILES {
            fs::write(dir.path().join(name), text)?;
        }
        Ok(Self(dir))
    }

    /// What the interpreter is given.
    pub(crate) fn start(&self) -> PathBuf {
        self.0.path().join("start.py")
    }
}
