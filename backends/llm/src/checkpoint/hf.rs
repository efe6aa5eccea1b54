//! Hugging Face folders: `config.json`, `*.safetensors`, and the small files beside them.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::config::Pooling;
use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::files::Files;
use super::index::WeightIndex;
use super::json::{self, Object};
use super::safetensors;

/// The configuration files of a folder, read.
pub(super) struct HfFolder {
    files: Files,
    config: Object,
    generation: Object,
}

impl HfFolder {
    /// Reads `config.json`; `None` if there is none, so that `files` are no such folder.
    pub(super) fn open(files: Files) -> Result<Option<Self>, CheckpointError> {
        let Some(config) = Object::read(&files, "config.json")? else { return Ok(None) };
        let generation = Object::read(&files, "generation_config.json")?.unwrap_or_default();
        Ok(Some(Self { files, config, generation }))
    }

    pub(super) fn config(&self) -> &Object {
        &self.config
    }

    /// The names in `architectures`.
    pub(super) fn architectures(&self) -> Result<Vec<String>, Kind> {
        let names = self.config.get("architectures").and_then(Value::as_array);
        let names: Vec<String> =
            names.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        if names.is_empty() {
            let known = super::registry::hf_names()?;
            return Err(Kind::Malformed(format!(
                "'architectures' in config.json names no architecture; known are: {known}"
            )));
        }
        Ok(names)
    }

    /// # Errors
    /// The weights are quantised in one of the ways of Hugging Face folders.
    pub(super) fn not_quantised(&self) -> Result<(), Kind> {
        let Some(config) = self.config.get("quantization_config") else { return Ok(()) };
        let method = config.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
        Err(Kind::Unsupported(format!(
            "quantization_config with quant_method '{method}' (F32, F16 and BF16 weights are read, and GGUF's quantised ones)"
        )))
    }

    /// The ids under `key` (one number or a list) in config.json, then in generation_config.json.
    pub(super) fn token_ids(&self, key: &str) -> Result<Vec<u32>, Kind> {
        let mut ids = Vec::new();
        for value in [self.config.get(key), self.generation.get(key)].into_iter().flatten() {
            let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for id in list {
                let id = id.as_u64().and_then(|n| u32::try_from(n).ok());
                let id = id
                    .ok_or_else(|| Kind::Malformed(format!("'{key}' holds something that is no token id")))?;
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        Ok(ids)
    }

    /// Pooling and normalisation as `modules.json` lists them. A folder without that file is pooled by the mean
    /// and not normalised, as its own library does.
    pub(super) fn pooling(&self) -> Result<(Pooling, bool), Kind> {
        let modules = json::read_value(&self.files, "modules.json").map_err(|e| e.kind)?;
        let Some(modules) = modules else { return Ok((Pooling::Mean, false)) };
        let (mut pooling, mut normalize) = (Pooling::Mean, false);
        for module in modules.as_array().into_iter().flatten() {
            let ty = module.get("type").and_then(Value::as_str).unwrap_or_default();
            match ty.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => {
                    let path = module.get("path").and_then(Value::as_str).unwrap_or_default();
                    pooling = self.pooling_mode(path)?;
                }
                "Normalize" => normalize = true,
                _ => return Err(Kind::Unsupported(format!("module '{ty}' of modules.json"))),
            }
        }
        Ok((pooling, normalize))
    }

    /// `max_seq_length` of `sentence_bert_config.json`.
    pub(super) fn max_seq_length(&self) -> Result<Option<usize>, Kind> {
        let config = Object::read(&self.files, "sentence_bert_config.json").map_err(|e| e.kind)?;
        config.map_or(Ok(None), |config| config.optional_size("max_seq_length"))
    }

    fn pooling_mode(&self, path: &str) -> Result<Pooling, Kind> {
        check_inside(path)?;
        let config = Object::read(&self.files, &format!("{path}/config.json")).map_err(|e| e.kind)?;
        let config = config.ok_or_else(|| Kind::Malformed(format!("'{path}/config.json' is missing")))?;
        let on = |key: &str| Ok::<_, Kind>(config.bool(key)?.unwrap_or(false));
        let mut modes = Vec::new();
        for (name, mode) in [
            ("cls_token", Pooling::Cls),
            ("mean_tokens", Pooling::Mean),
            ("max_tokens", Pooling::Max),
            ("mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
            ("weightedmean_tokens", Pooling::WeightedMean),
            ("lasttoken", Pooling::LastToken),
        ] {
            if on(&format!("pooling_mode_{name}"))? {
                modes.push(mode);
            }
        }
        match modes.as_slice() {
            [mode] => Ok(*mode),
            _ => Err(Kind::Unsupported("a pooling of several modes, or of none,".into())),
        }
    }

    /// Names of the files with the settings of its modules, as [`Self::pooling`] reads them.
    pub(super) fn module_files(&self) -> Result<Vec<String>, CheckpointError> {
        let modules = json::read_value(&self.files, "modules.json")?;
        let paths =
            modules.iter().filter_map(Value::as_array).flatten().filter_map(|m| m.get("path")?.as_str());
        Ok(paths.filter(|p| !p.is_empty()).map(|p| format!("{p}/config.json")).collect())
    }

    /// All weights: the files of the index, else `model.safetensors`, else every `*.safetensors`.
    pub(super) fn weights(&self) -> Result<WeightIndex, CheckpointError> {
        let mut index = WeightIndex::default();
        match &self.files {
            Files::Folder(dir) => {
                for file in self.weight_files(dir)? {
                    safetensors::read(&file, &mut index)?;
                }
            }
            Files::Plan(plan) => {
                for map in plan.safetensors() {
                    safetensors::read_mapped(map.clone(), &mut index).map_err(|k| k.at(plan.path()))?;
                }
            }
        }
        Ok(index)
    }

    /// The weight files of a folder.
    pub(super) fn weight_files(&self, dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
        let index_name = "model.safetensors.index.json";
        let index_path = dir.join(index_name);
        if let Some(index) = Object::read(&self.files, index_name)? {
            let map = index.get("weight_map").and_then(Value::as_object);
            let map = map.ok_or_else(|| Kind::malformed("'weight_map' is missing").at(&index_path))?;
            let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
            names.iter().try_for_each(|name| check_inside(name)).map_err(|k| k.at(&index_path))?;
            let files: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
            let missing = files.iter().filter(|file| !file.is_file()).count();
            if let Some(first) = files.iter().find(|file| !file.is_file()) {
                let text = format!(
                    "{missing} of its {} files of weights are not there, the first is {}; fetch them again",
                    files.len(),
                    first.file_name().unwrap_or_default().to_string_lossy()
                );
                return Err(Kind::NotACheckpoint(text).at(dir));
            }
            return Ok(files);
        }
        let single = dir.join("model.safetensors");
        if single.is_file() {
            return Ok(vec![single]);
        }
        let files = files_with_extension(dir, "safetensors")?;
        if files.is_empty() {
            let instead = in_the_place_of_weights(dir).unwrap_or_default();
            let text = format!("it has a config.json but no *.safetensors{instead}");
            return Err(Kind::NotACheckpoint(text).at(dir));
        }
        Ok(files)
    }
}

/// What a folder without weights has that somebody may take for them, and the mend.
fn in_the_place_of_weights(dir: &Path) -> Option<String> {
    let entries = std::fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: BTreeSet<String> = entries.collect();
    let ending = |endings: &[&str]| names.iter().find(|n| endings.iter().any(|ending| n.ends_with(ending)));
    if let Some(name) = ending(&[".incomplete", ".part", ".partial", ".crdownload", ".aria2", ".tmp"]) {
        return Some(format!(" but {name}: its download is not complete"));
    }
    if let Some(name) = ending(&[".bin", ".pt", ".pth"]) {
        return Some(format!(
            " but {name}, which can run code when it is read: write safetensors with save_pretrained of transformers"
        ));
    }
    ending(&[".gguf"]).map(|name| format!(" but {name}: give that file"))
}

/// A path that leads out of the folder is refused.
fn check_inside(path: &str) -> Result<(), Kind> {
    if Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        Ok(())
    } else {
        Err(Kind::Malformed(format!("the path '{path}' leads out of the folder")))
    }
}

/// The files of `dir` with this extension, sorted.
pub(super) fn files_with_extension(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, CheckpointError> {
    let at = |e: std::io::Error| Kind::from(e).at(dir);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
