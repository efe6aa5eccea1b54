//! Makes the crate of a new backend from the template, which is part of the program, so that no checkout is needed.
#![forbid(unsafe_code)]

mod sdk;

use std::fs;
use std::path::{Path, PathBuf};

pub use sdk::Sdk;

/// The template's files, relative to the new crate's folder, with placeholders in names and content.
const TEMPLATE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../template/Cargo.toml")),
    ("README.md", include_str!("../../template/README.md")),
    (".gitignore", include_str!("../../template/.gitignore")),
    (".github/workflows/ci.yml", include_str!("../../template/.github/workflows/ci.yml")),
    ("rustfmt.toml", include_str!("../../template/rustfmt.toml")),
    ("src/lib.rs", include_str!("../../template/src/lib.rs")),
    ("tests/backend.rs", include_str!("../../template/tests/backend.rs")),
    ("tests/conformance.rs", include_str!("../../template/tests/conformance.rs")),
    ("models/{{name}}/config.pbtxt", include_str!("../../template/models/{{name}}/config.pbtxt")),
    ("models/{{name}}/1/README.md", include_str!("../../template/models/{{name}}/1/README.md")),
];

/// Why no crate was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has something in it that a name may not have.
    #[error("a backend's name holds letters, digits, `_` and `-`; `{name}` has {bad:?}")]
    Character {
        /// The name.
        name: String,
        /// The character.
        bad: char,
    },
    /// The name starts with something else than a letter.
    #[error("a backend's name starts with a letter; `{0}` does not")]
    Start(String),
    /// A crate of the SDK is called so.
    #[error("`{0}` is a crate of the SDK, which the new one needs: choose another name")]
    Taken(String),
    /// Something is there already.
    #[error("{} is there already: choose another name or --path", .0.display())]
    Exists(PathBuf),
    /// The crates of the SDK are not where they should be.
    #[error(
        "{} holds neither the packaged crates of the SDK ({missing}-VERSION is missing) nor those of a checkout \
         (backend-api): give --sdk one of these folders", .folder.display()
    )]
    NoSdk {
        /// Where they were looked for.
        folder: PathBuf,
        /// The first one that is not there.
        missing: &'static str,
    },
    /// The file system says no.
    #[error("cannot write {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// A backend's two names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The package: as given.
    pub crate_name: String,
    /// The backend, as `config.pbtxt` and the library's file name have it: a library's name has no `-`.
    pub backend: String,
}

impl Name {
    /// Holds a name against the rules.
    ///
    /// # Errors
    /// It has a character that it may not have, or is taken.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            return Err(Error::Character { name: text.to_owned(), bad });
        }
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(Error::Start(text.to_owned()));
        }
        if sdk::is_crate_of_it(text) {
            return Err(Error::Taken(text.to_owned()));
        }
        Ok(Self { crate_name: text.to_owned(), backend: text.replace('-', "_") })
    }
}

/// Makes the crate in `to`, which is empty or absent.
///
/// # Errors
/// There is something at `to`, or it cannot be written.
pub fn create(name: &Name, to: &Path, sdk: &Sdk) -> Result<(), Error> {
    if to.exists() && fs::read_dir(to).map_or(true, |mut entries| entries.next().is_some()) {
        return Err(Error::Exists(to.to_owned()));
    }
    let fill = |text: &str| {
        text.replace("{{name}}", &name.backend)
            .replace("{{crate}}", &name.crate_name)
            .replace("{{sdk}}", &sdk.path("trireme-sdk"))
            .replace("{{testing}}", &sdk.path("trireme-testing"))
            .replace("{{patch}}", &sdk.patch())
    };
    for (file, content) in TEMPLATE {
        let path = to.join(fill(file));
        let folder = path.parent().unwrap_or(to);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, fill(content)));
        written.map_err(|error| Error::Io { path, error })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let name = Name::parse("my-Backend_2").unwrap();
        assert_eq!((name.crate_name.as_str(), name.backend.as_str()), ("my-Backend_2", "my_Backend_2"));
        for bad in ["", "2x", "-x", "a b", "a/b", "..", "ä", "a.b", "trireme-sdk"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_file_of_the_template_is_forgotten() {
        fn files(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { files(&path, found) } else { found.push(path) }
            }
        }
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template");
        let mut found = Vec::new();
        files(&template, &mut found);
        for path in &found {
            let name = path.strip_prefix(&template).unwrap().to_str().unwrap();
            assert!(TEMPLATE.iter().any(|(known, _)| *known == name), "{name}");
        }
        assert_eq!(found.len(), TEMPLATE.len());
    }

    #[test]
    fn placeholders_are_filled_in_content_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let sdk = sdk::tests::packaged(&dir.path().join("crates"));
        let to = dir.path().join("a-b");
        let name = Name::parse("a-b").unwrap();
        create(&name, &to, &sdk).unwrap();
        let manifest = fs::read_to_string(to.join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("name = \"a-b\"") && manifest.contains("name = \"trireme_a_b\""),
            "{manifest}"
        );
        assert!(manifest.contains("[patch.crates-io]\ntrireme-abi = "), "{manifest}");
        assert!(fs::read_to_string(to.join("models/a_b/config.pbtxt")).unwrap().contains("backend: \"a_b\""));
        for (file, _) in TEMPLATE {
            let path = to.join(file.replace("{{name}}", "a_b"));
            assert!(!fs::read_to_string(&path).unwrap().contains("{{"), "{}", path.display());
        }
        assert!(matches!(create(&name, &to, &sdk), Err(Error::Exists(_))));
    }
}
