//! The files of a load request, in a directory of their own.

use std::path::Path;

use tempfile::TempDir;
use trireme_protocol::repository::ModelFile;

use crate::error::ServeError;
use crate::files::inside;

/// A temporary directory that holds one model. It goes when nobody can read it any more.
#[derive(Debug)]
pub(crate) struct Overlay {
    directory: TempDir,
}

impl Overlay {
    /// Writes the files of a request for `model`.
    ///
    /// # Errors
    /// INVALID_ARG for a path that leaves the directory or meets another one, INTERNAL if there is no room.
    pub(crate) fn write(model: &str, files: &[ModelFile]) -> Result<Self, ServeError> {
        let no_room = |error: std::io::Error| {
            ServeError::internal(format!("no temporary directory for the files of model '{model}': {error}"))
        };
        let directory = tempfile::Builder::new().prefix("trireme-model-").tempdir().map_err(no_room)?;
        let root = directory.path().join(model);
        std::fs::create_dir(&root).map_err(no_room)?;
        for file in files {
            let refuse = |error: &dyn std::fmt::Display| {
                ServeError::invalid(format!(
                    "file '{}' of the load request: {error}",
                    file.path.escape_debug()
                ))
            };
            let path = inside(&root, &file.path).map_err(|error| refuse(&error))?;
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| refuse(&error))?;
            }
            // Never over another one: two spellings of a path would be one file.
            let mut made = std::fs::File::create_new(&path).map_err(|error| refuse(&error))?;
            std::io::Write::write_all(&mut made, &file.contents).map_err(no_room)?;
        }
        Ok(Self { directory })
    }

    /// The directory that holds the model's directory.
    pub(crate) fn repository(&self) -> &Path {
        self.directory.path()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(path: &str, text: &str) -> ModelFile {
        ModelFile { path: path.to_owned(), contents: text.to_owned().into() }
    }

    #[test]
    fn files_lie_in_a_model_of_their_own_and_go_with_it() {
        let overlay = Overlay::write("m", &[file("1/model", "x"), file("labels.txt", "y")]).unwrap();
        let root = overlay.repository().to_owned();
        assert_eq!(std::fs::read_to_string(root.join("m/1/model")).unwrap(), "x");
        assert_eq!(std::fs::read_to_string(root.join("m/labels.txt")).unwrap(), "y");
        drop(overlay);
        assert!(!root.exists());
    }

    #[test]
    fn no_path_leaves_or_meets_another() {
        for path in ["../x", "/etc/x", "1/../../x", "", "1/x/.."] {
            let error = Overlay::write("m", &[file(path, "")]).unwrap_err();
            assert!(error.message.contains("leaves the directory"), "{path}: {error}");
        }
        for (one, two) in [("1/a", "1/a"), ("1/a", "./1/a"), ("1", "1/a"), ("1/a", "1")] {
            assert!(Overlay::write("m", &[file(one, ""), file(two, "")]).is_err(), "{one} {two}");
        }
    }
}
