//! A model as `trireme-gpu` opens it: the same parameters, without a server.

use std::path::{Path, PathBuf};

use serde_json::Value;
use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::params::Parameters;
use trireme_llm::serve::Sizes;
use trireme_sdk::{Error, Result};

use super::PARAMETERS;
use super::tuning::{self, Caches};
use super::{graphs, load};
use crate::executor::{CudaExecutor, Options, Outline};

/// A checkpoint with what its configuration says of its executor.
pub struct OfflineModel {
    checkpoint: Checkpoint,
    params: Parameters,
    options: Options,
    tuning: Option<PathBuf>,
}

impl OfflineModel {
    /// Opens a version directory or a checkpoint. `config` is a model configuration as JSON, or null.
    ///
    /// # Errors
    /// Names the file or the parameter.
    pub fn open(path: &Path, config: &Value, gpu: i32) -> Result<Self> {
        let given = config["parameters"].as_object().into_iter().flatten();
        let given = given.filter_map(|(name, value)| Some((name.as_str(), value["string_value"].as_str()?)));
        let tables = [trireme_llm::params::PARAMETERS, PARAMETERS];
        let params = Parameters::read(&tables, given).map_err(|e| Error::invalid(e.to_string()))?;
        let path = if path.is_dir() { params.checkpoint(&version(path)) } else { path.to_owned() };
        let checkpoint = Checkpoint::open_as(&path, params.text("load_format"))
            .map_err(|e| Error::invalid(e.to_string()))?;
        let trained = load::decoder(&checkpoint)?.max_position_embeddings;
        let graphs = graphs::of_model(config, &params, None)?;
        let sizes = Sizes::of_json(config, &params, trained)?;
        let options = load::options(&sizes, &params, &graphs, gpu)?;
        Ok(Self { checkpoint, params, options, tuning: None })
    }

    /// With choices of kernels, and code of them, kept in folders; `off` for none, the user's own where it is not given.
    ///
    /// # Errors
    /// A folder has no name.
    pub fn keeping(mut self, tuning: Option<&str>, kernels: Option<&str>) -> Result<Self> {
        let given = [("tuning_cache", tuning), ("kernel_cache", kernels)];
        let given = given.into_iter().filter_map(|(name, folder)| Some((name.to_owned(), folder?.into())));
        let caches = Caches::of_settings(&Value::Object(given.collect()))?;
        (self.tuning, self.options.kernel_cache) = (caches.tuning, caches.kernels);
        Ok(self)
    }

    /// With or without what is fused into products, whatever the configuration says.
    #[must_use]
    pub fn with_fusion(mut self, on: bool) -> Self {
        self.options.skinny_rows = if on { Options::default().skinny_rows } else { 0 };
        self
    }

    /// Whether norms and activations are computed inside of products.
    pub fn fuses(&self) -> bool {
        self.options.skinny_rows > 0
    }

    /// Puts the model on its GPU.
    ///
    /// # Errors
    /// There is none, or the model does not fit.
    pub fn load(&self) -> Result<CudaExecutor> {
        let source = load::source(&self.checkpoint, &self.params);
        let config = load::decoder(&self.checkpoint)?;
        let tuning = tuning::store(&self.checkpoint, self.tuning.as_ref(), self.options.device);
        tuning
            .and_then(|tuning| {
                CudaExecutor::load(config, &source, &Options { tuning, ..self.options.clone() })
            })
            .map_err(load::error)
    }

    /// What can be said of it without a GPU.
    ///
    /// # Errors
    /// There are no kernels for this model.
    pub fn outline(&self) -> Result<Outline> {
        Outline::new(load::decoder(&self.checkpoint)?, &self.options).map_err(load::error)
    }

    /// Where the choices of kernels of a loaded model come from, in a sentence.
    pub fn choices(executor: &CudaExecutor) -> String {
        let report = executor.tuning();
        report.notes.iter().cloned().chain([tuning::said(report)]).collect::<Vec<_>>().join("; ")
    }
}

/// The newest version of a model's directory; any other directory is taken as it is.
fn version(path: &Path) -> PathBuf {
    let versions = std::fs::read_dir(path).into_iter().flatten().flatten();
    let numbers = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    numbers.max().map_or_else(|| path.to_owned(), |number| path.join(number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_version_is_taken_and_parameters_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["2", "10", "labels"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(version(dir.path()), dir.path().join("10"));
        let config = json!({"parameters": {"use_cuda_grap": {"string_value": "true"}}});
        let error = OfflineModel::open(dir.path(), &config, 0).err().unwrap().to_string();
        assert!(error.contains("did you mean 'use_cuda_graph'"), "{error}");
        let error = OfflineModel::open(dir.path(), &Value::Null, 0).err().unwrap().to_string();
        assert!(error.contains("/10"), "{error}");
    }
}
