//! Where the crates of the SDK are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// The crates that a backend and its tests need, and their folders in a checkout.
const CRATES: [(&str, &str); 5] = [
    ("trireme-abi", "abi"),
    ("trireme-sdk", "sdk"),
    ("trireme-host", "host"),
    ("trireme-testing", "testing"),
    ("trireme-conformance", "conformance"),
];

/// The folders of the SDK's crates.
#[derive(Debug, Clone)]
pub struct Sdk {
    crates: BTreeMap<&'static str, PathBuf>,
    /// Packaged crates name each other by version only, so they have to be told where the others are.
    packaged: bool,
}

impl Sdk {
    /// Looks for the crates in a folder: packaged ones, as `cargo package` and then `tar` leave them, or `backend-api` of a
    /// checkout.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn find(folder: &Path) -> Result<Self, Error> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let is_crate = |path: &PathBuf| path.join("Cargo.toml").is_file();
        let checkout: Option<BTreeMap<_, _>> = CRATES
            .iter()
            .map(|(name, part)| Some((*name, Some(folder.join(part)).filter(is_crate)?)))
            .collect();
        if let Some(crates) = checkout {
            return Ok(Self { crates, packaged: false });
        }
        let entries = || fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let newest = |name: &str| {
            let versions = entries().filter(|path| {
                let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
                let version = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
                version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
            });
            versions.filter(is_crate).max_by_key(|path| version_key(path))
        };
        let mut crates = BTreeMap::new();
        for (name, _) in CRATES {
            let path = newest(name).ok_or_else(|| Error::NoSdk { folder: folder.clone(), missing: name })?;
            crates.insert(name, path);
        }
        Ok(Self { crates, packaged: true })
    }

    /// The folder of a crate, as a manifest writes it between quotes.
    pub(crate) fn path(&self, name: &str) -> String {
        self.crates.get(name).map(|path| escaped(path)).unwrap_or_default()
    }

    /// What a manifest says so that packaged crates find each other.
    pub(crate) fn patch(&self) -> String {
        if !self.packaged {
            return String::new();
        }
        let mut text =
            "# The SDK's crates name each other by version; this is where they are.\n[patch.crates-io]\n"
                .to_owned();
        for (name, path) in &self.crates {
            text += &format!("{name} = {{ path = \"{}\" }}\n", escaped(path));
        }
        text + "\n"
    }
}

/// Whether a crate of the SDK has this name.
pub(crate) fn is_crate_of_it(name: &str) -> bool {
    CRATES.iter().any(|(one, _)| *one == name)
}

/// A path in a basic string of TOML.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"")
}

/// The numbers at the end of a folder's name, so that 0.10.0 is newer than 0.9.0.
fn version_key(path: &Path) -> Vec<u64> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.rsplit('-').next().unwrap_or_default();
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder with packaged crates that hold a manifest and nothing else.
    pub(crate) fn packaged(folder: &Path) -> Sdk {
        for (name, _) in CRATES {
            for version in ["0.9.0", "0.10.0"] {
                let path = folder.join(format!("{name}-{version}"));
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join("Cargo.toml"), "").unwrap();
            }
        }
        Sdk::find(folder).unwrap()
    }

    #[test]
    fn packaged_crates_are_found_in_their_newest_version() {
        let dir = tempfile::tempdir().unwrap();
        let sdk = packaged(dir.path());
        assert!(sdk.path("trireme-sdk").ends_with("trireme-sdk-0.10.0"), "{}", sdk.path("trireme-sdk"));
        assert_eq!(sdk.patch().matches("path = ").count(), CRATES.len());
    }

    #[test]
    fn a_quote_in_a_path_does_not_end_it() {
        let dir = tempfile::tempdir().unwrap();
        let sdk = packaged(&dir.path().join("a\"b"));
        assert!(sdk.patch().contains("a\\\"b/trireme-abi-0.10.0\" }"), "{}", sdk.patch());
        assert!(sdk.path("trireme-sdk").contains("a\\\"b"), "{}", sdk.path("trireme-sdk"));
    }

    #[test]
    fn a_checkout_needs_no_patch_and_a_folder_without_crates_is_refused() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let sdk = Sdk::find(&checkout).unwrap();
        assert!(sdk.path("trireme-conformance").ends_with("conformance") && sdk.patch().is_empty());
        let dir = tempfile::tempdir().unwrap();
        let error = Sdk::find(dir.path()).unwrap_err().to_string();
        assert!(error.contains("trireme-abi-VERSION"), "{error}");
    }
}
