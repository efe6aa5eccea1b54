//! The names of an output's classes, read when the model is loaded.

use std::path::Path;
use std::sync::Arc;

use trireme_model_config::CheckedConfig;

use crate::error::ServeError;

/// Larger files than this, in bytes, hold no labels: those of real models have some kilobytes.
const MAX_BYTES: u64 = 64 << 20;

/// The labels of a model, by output.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels(Arc<[(String, Vec<String>)]>);

impl Labels {
    /// Reads the label files that a configuration names, in the model's directory.
    ///
    /// # Errors
    /// A file that cannot be read, or whose path leaves the directory.
    pub(crate) fn read(config: &CheckedConfig, model_dir: &Path) -> Result<Self, ServeError> {
        let named = config.outputs.iter().filter(|output| !output.label_filename.is_empty());
        let read = named.map(|output| {
            let labels = lines(model_dir, &output.label_filename).map_err(|error| {
                let message =
                    format!("the labels of output '{}' of model '{}': {error}", output.name, config.name);
                ServeError::invalid(message)
            })?;
            Ok((output.name.clone(), labels))
        });
        Ok(Self(read.collect::<Result<_, ServeError>>()?))
    }

    /// The labels of an output, by class.
    pub(crate) fn of(&self, output: &str) -> Option<&[String]> {
        self.0.iter().find(|(name, _)| name == output).map(|(_, labels)| labels.as_slice())
    }
}

fn lines(model_dir: &Path, file: &str) -> Result<Vec<String>, String> {
    let path = crate::files::inside(model_dir, file)?;
    let text = crate::files::read_at_most(&path, MAX_BYTES)?;
    let text = String::from_utf8(text).map_err(|_| format!("'{}' is not UTF-8", path.display()))?;
    Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use trireme_model_config::Draft;

    fn read(dir: &Path) -> Result<Labels, String> {
        let text = "backend: \"b\" max_batch_size: 0\n\
                    input { name: \"X\" data_type: TYPE_FP32 dims: 1 }\n\
                    output [{ name: \"Y\" data_type: TYPE_FP32 dims: 3 label_filename: \"y.txt\" },\n\
                            { name: \"Z\" data_type: TYPE_FP32 dims: 3 }]";
        let mut draft = Draft::parse(None, text.to_owned()).unwrap();
        draft.normalise("m", &[]);
        Labels::read(&draft.check("m").unwrap().0, dir).map_err(|error| error.message)
    }

    #[test]
    fn a_line_is_a_class() {
        let dir = tempfile::tempdir().unwrap();
        let missing = read(dir.path()).unwrap_err();
        assert!(missing.contains("output 'Y' of model 'm'") && missing.contains("y.txt"), "{missing}");
        std::fs::write(dir.path().join("y.txt"), "cat\r\n\nowl").unwrap();
        let labels = read(dir.path()).unwrap();
        assert_eq!(labels.of("Y").unwrap(), ["cat", "", "owl"]);
        assert_eq!((labels.of("Z"), labels.of("X")), (None, None));
        assert!(lines(dir.path(), "../y.txt").unwrap_err().contains("leaves"));
    }
}
