//! Opening a checkpoint, whichever of the formats it is in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Architecture, RopeLayout};
use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::files::Files;
use super::gguf::Gguf;
use super::hf::{HfFolder, files_with_extension};
use super::index::WeightIndex;
use super::registry::{self, ArchitectureEntry};
use super::text::TextFiles;
use super::weight::Weight;
use crate::plan::{self, Plan};

/// An error about what is at `path`, or behind a link there, by the name that somebody has given.
pub(super) fn named_as_given(error: CheckpointError, path: &Path) -> CheckpointError {
    let inside = error.path.strip_prefix(path).map(|rest| match rest.as_os_str().is_empty() {
        true => followed(path),
        false => followed(path).join(rest),
    });
    CheckpointError { path: followed(&inside.unwrap_or_else(|_| error.path.clone())), ..error }
}

/// Where an absolute link leads, which is what somebody has given. Other paths stay as they are, and so do links to files of
/// other endings: those are blobs of a cache, whose names say nothing.
fn followed(path: &Path) -> PathBuf {
    let says = |to: &PathBuf| to.is_absolute() && (to.is_dir() || to.extension() == path.extension());
    std::fs::read_link(path).ok().filter(says).unwrap_or_else(|| path.to_path_buf())
}

/// Small files by name, and the paths of weight files.
type PlanFiles = (Vec<(String, Vec<u8>)>, Vec<PathBuf>);

/// A model as it lies on disk: opened, its tables checked, its weights mapped.
///
/// Holding one means that every weight the architecture needs is there, whole, and of the shape that the
/// configuration says.
pub struct Checkpoint {
    pub architecture: Architecture,
    pub rope_layout: RopeLayout,
    /// The folder or the `.gguf` file.
    pub source: PathBuf,
    pub(super) weights: WeightIndex,
    pub(super) text: TextFiles,
    /// Of a plan: tables of engines, by device.
    pub(super) tuning: Vec<(String, Vec<u8>)>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder, a `.gguf` file, a `.plan`, or a folder that holds one `.gguf` file or a `model.plan`.
    /// A plan goes before what lies beside it.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::open_any(path).map_err(|error| named_as_given(error, path))
    }

    fn open_any(path: &Path) -> Result<Self, CheckpointError> {
        let meta = std::fs::metadata(path).map_err(|e| Kind::from(e).at(path))?;
        if !meta.is_dir() {
            if path.extension().is_some_and(|e| e == "plan") {
                return Self::open_plan(path);
            }
            return Self::open_gguf(path);
        }
        // What a plan refers to lies about the plan itself, not about a link to it.
        let plan = followed(&path.join(plan::FILE_NAME));
        if plan.is_file() {
            return Self::open_plan(&plan);
        }
        let files = Files::Folder(path.to_path_buf());
        if let Some(folder) = HfFolder::open(files.clone())? {
            return Self::open_folder(files, &folder);
        }
        match files_with_extension(path, "gguf")?.as_slice() {
            [file] => Self::open_gguf(file),
            [] if path.join("adapter_config.json").is_file() => {
                let text = "it is an adapter (adapter_config.json): merge it into its model first";
                Err(Kind::NotACheckpoint(text.into()).at(path))
            }
            [] => {
                Err(Kind::NotACheckpoint("it holds no config.json, no .gguf file and no model.plan".into())
                    .at(path))
            }
            several => {
                let names: Vec<_> = several
                    .iter()
                    .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
                    .collect();
                let text = format!("it holds several .gguf files ({}); name one of them", names.join(", "));
                Err(Kind::NotACheckpoint(text).at(path))
            }
        }
    }

    fn open_plan(path: &Path) -> Result<Self, CheckpointError> {
        let plan = Plan::open(path).map_err(|e| Kind::Plan(e).at(path))?;
        let tuning = plan.tunings().map(|(device, table)| (device.to_owned(), table.to_vec())).collect();
        let opened = if let Some(map) = plan.gguf() {
            Gguf::read(map).and_then(|file| Self::from_gguf(path, file)).map_err(|k| k.at(path))?
        } else {
            let files = Files::Plan(Arc::new(plan));
            let folder = HfFolder::open(files.clone())?.ok_or_else(|| {
                let text = "the plan holds neither a config.json nor a .gguf file";
                Kind::NotACheckpoint(text.into()).at(path)
            })?;
            Self::open_folder(files, &folder)?
        };
        Ok(Self { tuning, ..opened })
    }

    /// The files that a plan of this checkpoint takes: texts with their bytes, and the weights' paths.
    pub(crate) fn plan_files(&self) -> Result<PlanFiles, CheckpointError> {
        if self.source.is_file() {
            return Ok((Vec::new(), vec![self.source.clone()]));
        }
        let files = Files::Folder(self.source.clone());
        let folder = HfFolder::open(files.clone())?
            .ok_or_else(|| Kind::NotACheckpoint("its config.json is gone".into()).at(&self.source))?;
        let mut texts = Vec::new();
        for name in plan::texts().iter().map(|n| (*n).to_owned()).chain(folder.module_files()?) {
            if let Some(bytes) = files.read(&name)? {
                texts.push((name, bytes));
            }
        }
        Ok((texts, folder.weight_files(&self.source)?))
    }

    fn open_folder(files: Files, folder: &HfFolder) -> Result<Self, CheckpointError> {
        let path = files.root();
        let parsed = folder.architectures().and_then(|names| {
            let entry = registry::by_hf_names(&names)?;
            Ok((entry, (entry.from_hf)(folder)?))
        });
        let (entry, architecture) = parsed.map_err(|k| k.at(path))?;
        folder.not_quantised().map_err(|k| k.at(path))?;
        let mut weights = folder.weights()?;
        if !entry.optional_prefix.is_empty() {
            weights.strip_prefix(entry.optional_prefix).map_err(|k| k.at(path))?;
        }
        check_weights(entry, &architecture, &weights).map_err(|k| k.at(path))?;
        let text = TextFiles::of_folder(&files)?;
        let (source, rope_layout) = (path.to_path_buf(), RopeLayout::Half);
        Ok(Self { architecture, rope_layout, source, weights, text, tuning: Vec::new() })
    }

    fn open_gguf(path: &Path) -> Result<Self, CheckpointError> {
        let file = Gguf::open(path)?;
        Self::from_gguf(path, file).map_err(|k| k.at(path))
    }

    fn from_gguf(path: &Path, file: Gguf) -> Result<Self, Kind> {
        file.metadata.whole()?;
        let (entry, gguf) = registry::by_gguf_name(file.metadata.str("general.architecture")?)?;
        let shape = |name: &str| Some(file.weights.get(name)?.shape.clone());
        let architecture = (gguf.from_gguf)(&file.metadata, &shape, file.weights.get("rope_freqs.weight"))?;
        let mut weights = WeightIndex::default();
        for weight in file.weights.iter() {
            let Some(name) = (gguf.canonical_name)(&weight.name) else { continue };
            let mut weight = weight.clone();
            weight.name = name;
            weights.add(weight)?;
        }
        check_weights(entry, &architecture, &weights)?;
        let text = TextFiles::of_gguf(file.metadata)?;
        let (source, rope_layout) = (path.to_path_buf(), gguf.rope_layout);
        Ok(Self { architecture, rope_layout, source, weights, text, tuning: Vec::new() })
    }

    /// The weight of this Hugging Face name (`model.layers.0.self_attn.q_proj.weight`,
    /// `encoder.layer.0.attention.self.query.weight` without a `bert.` prefix), whichever format it came from.
    pub fn weight(&self, hf_name: &str) -> Result<&Weight, CheckpointError> {
        self.weights.get(hf_name).ok_or_else(|| self.weights.missing(hf_name).at(&self.source))
    }

    /// As [`Self::weight`], for weights that a model may do without.
    pub fn try_weight(&self, hf_name: &str) -> Option<&Weight> {
        self.weights.get(hf_name)
    }

    /// The table that an engine has left in the plan for this device.
    pub fn tuning(&self, device: &str) -> Option<&[u8]> {
        self.tuning.iter().find(|(name, _)| name == device).map(|(_, table)| table.as_slice())
    }

    /// All weights, in no particular order.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.weights.iter()
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = self.weights.len();
        write!(f, "{} ({n} weights): {:?}", self.source.display(), self.architecture)
    }
}

/// Every weight that the architecture needs is there with the shape that the configuration says.
fn check_weights(
    entry: &ArchitectureEntry,
    architecture: &Architecture,
    weights: &WeightIndex,
) -> Result<(), Kind> {
    for (name, expected) in (entry.expected)(architecture) {
        let weight = weights.get(&name).ok_or_else(|| weights.missing(&name))?;
        if weight.shape != expected {
            return Err(Kind::WrongShape { name, found: weight.shape.clone(), expected });
        }
    }
    Ok(())
}
