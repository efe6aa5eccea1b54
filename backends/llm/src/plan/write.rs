//! Writing a plan from a checkpoint.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::read::{hex, too_far};
use super::table::{Kind, Place, Profile, Section, Table};
use super::{ALIGNMENT, HEADER_BYTES, MAGIC, PlanError, VERSION};
use crate::checkpoint::{Checkpoint, Mapping};

/// The small files of a checkpoint that a plan takes along.
const TEXTS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
];

/// What goes into a plan besides the checkpoint.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// The paths of weight files from the plan's folder, instead of their bytes.
    pub by_reference: bool,
    pub profiles: Vec<Profile>,
    /// Tables of engines, by device; one of each.
    pub tuning: Vec<(String, Vec<u8>)>,
}

/// Writes the plan of `checkpoint` (a Hugging Face folder or a GGUF file, which is opened and checked first) to `to`. The file
/// appears whole or not at all.
pub fn write(checkpoint: &Path, to: &Path, options: &PlanOptions) -> Result<(), PlanError> {
    let opened = Checkpoint::open(checkpoint).map_err(|e| PlanError::Source(e.to_string()))?;
    if opened.source.extension().is_some_and(|e| e == "plan") {
        return Err(PlanError::Source(format!("{} is a plan already", opened.source.display())));
    }
    let (texts, weights) = opened.plan_files().map_err(|e| PlanError::Source(e.to_string()))?;
    let folder = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut contents = Vec::new();
    let mut sections = Vec::new();
    let mut add = |kind, name: String, place, content: Mapping| {
        let (bytes, sha256) = (content.bytes().len() as u64, hex(&Sha256::digest(content.bytes())));
        sections.push(Section { kind, name, place, bytes, sha256 });
        contents.push(content);
    };
    for (name, bytes) in texts {
        add(Kind::Text, name, Place::Inline(0), Mapping::of(bytes));
    }
    for (i, (device, table)) in options.tuning.iter().enumerate() {
        if options.tuning[..i].iter().any(|(other, _)| other == device) {
            return Err(PlanError::Source(format!("there are two tuning tables of the device '{device}'")));
        }
        add(Kind::Tuning, device.clone(), Place::Inline(0), Mapping::of(table.clone()));
    }
    for path in weights {
        let kind =
            if path.extension().is_some_and(|e| e == "safetensors") { Kind::Safetensors } else { Kind::Gguf };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = if options.by_reference {
            let path = relative(&path, folder)?;
            if let Some(problem) = too_far(&path) {
                return Err(PlanError::Reference { path, problem });
            }
            Place::Beside(path)
        } else {
            Place::Inline(0)
        };
        add(kind, name, place, Mapping::open(&path)?);
    }
    let mut table = Table { sections, profiles: options.profiles.clone() };
    let json = place(&mut table)?;

    let partial = to.with_extension("plan.partial");
    let mut file = BufWriter::new(File::create(&partial)?);
    file.write_all(MAGIC)?;
    file.write_all(&VERSION.to_le_bytes())?;
    file.write_all(&[0; 4])?;
    file.write_all(&(json.len() as u64).to_le_bytes())?;
    file.write_all(&Sha256::digest(&json))?;
    file.write_all(&[0; 8])?;
    file.write_all(&json)?;
    for (section, content) in table.sections.iter().zip(&contents) {
        if let Place::Inline(begin) = section.place {
            file.seek(SeekFrom::Start(begin))?;
            file.write_all(content.bytes())?;
        }
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&partial, to)?;
    Ok(())
}

/// Gives inline sections their places and the table its text, which has to fit before the first of them.
fn place(table: &mut Table) -> Result<Vec<u8>, PlanError> {
    // A place takes at most 20 digits, of which one is counted already.
    let text = serde_json::to_vec(table).map_err(|e| PlanError::Malformed(e.to_string()))?;
    let mut at = (HEADER_BYTES + text.len() + 20 * table.sections.len()) as u64;
    for section in &mut table.sections {
        if let Place::Inline(begin) = &mut section.place {
            *begin = at.next_multiple_of(ALIGNMENT);
            at = *begin + section.bytes;
        }
    }
    serde_json::to_vec(table).map_err(|e| PlanError::Malformed(e.to_string()))
}

/// The way from a folder to a file, both of which exist.
fn relative(file: &Path, folder: &Path) -> Result<String, PlanError> {
    let (file, folder) = (std::path::absolute(file)?, folder.canonicalize()?);
    let parent = file.parent().unwrap_or(Path::new("/")).canonicalize()?;
    let file = parent.join(file.file_name().unwrap_or_default());
    let shared = file.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let mut path = PathBuf::new();
    folder.components().skip(shared).for_each(|_| path.push(".."));
    file.components().skip(shared).for_each(|c| path.push(c));
    path.into_os_string().into_string().map_err(|_| PlanError::Source("a path is not UTF-8".into()))
}

/// Names of the small files that a plan may take.
pub(crate) fn texts() -> &'static [&'static str] {
    TEXTS
}
