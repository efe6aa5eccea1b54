//! Opening a plan.

use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::table::{Kind, Place, Profile, Section, Table};
use super::{ALIGNMENT, HEADER_BYTES, MAGIC, MAX_TABLE_BYTES, PlanError, VERSION};
use crate::checkpoint::Mapping;

/// An open plan. Holding one means that its table and all its sections are whole and as they were written.
pub struct Plan {
    path: PathBuf,
    table: Table,
    /// The bytes of each section.
    contents: Vec<Mapping>,
}

impl Plan {
    /// Opens and verifies a plan. Reads all of it once, and what it refers to.
    pub fn open(path: &Path) -> Result<Self, PlanError> {
        let map = Mapping::open(path)?;
        let table = read_table(map.bytes())?;
        let contents = table.sections.iter().map(|s| content(s, path, &map)).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_path_buf(), table, contents })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shape profiles that it was written with.
    pub fn profiles(&self) -> &[Profile] {
        &self.table.profiles
    }

    /// The tuning table of a device, by the device's name.
    pub fn tuning(&self, device: &str) -> Option<&[u8]> {
        self.find(|s| s.kind == Kind::Tuning && s.name == device).map(Mapping::bytes)
    }

    /// All tuning tables, by device.
    pub(crate) fn tunings(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let pairs = self.table.sections.iter().zip(&self.contents);
        pairs.filter(|(s, _)| s.kind == Kind::Tuning).map(|(s, c)| (s.name.as_str(), c.bytes()))
    }

    /// A small file of the checkpoint.
    pub fn text(&self, name: &str) -> Option<&[u8]> {
        self.find(|s| s.kind == Kind::Text && s.name == name).map(Mapping::bytes)
    }

    /// The weights as one GGUF file, if that is what they are.
    pub(crate) fn gguf(&self) -> Option<&Mapping> {
        self.find(|s| s.kind == Kind::Gguf)
    }

    /// All safetensors files.
    pub(crate) fn safetensors(&self) -> impl Iterator<Item = &Mapping> {
        let pairs = self.table.sections.iter().zip(&self.contents);
        pairs.filter(|(s, _)| s.kind == Kind::Safetensors).map(|(_, c)| c)
    }

    fn find(&self, wanted: impl Fn(&Section) -> bool) -> Option<&Mapping> {
        self.table.sections.iter().position(wanted).map(|i| &self.contents[i])
    }
}

/// The checked table at the front of a file.
pub(super) fn read_table(file: &[u8]) -> Result<Table, PlanError> {
    let have = file.len() as u64;
    let truncated = |what: &str, end: u64| PlanError::Truncated { what: what.to_owned(), end, have };
    if let Some(b"ftrt" | b"ptrt") = file.get(..4) {
        return Err(PlanError::TensorRt);
    }
    if file.len() < MAGIC.len() && MAGIC.starts_with(file) {
        return Err(truncated("the header", HEADER_BYTES as u64));
    }
    if !file.starts_with(MAGIC) {
        return Err(PlanError::Foreign);
    }
    let header = file.get(..HEADER_BYTES).ok_or_else(|| truncated("the header", HEADER_BYTES as u64))?;
    let version = header[8..12].iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
    if version != VERSION {
        return Err(PlanError::Version { found: version });
    }
    let length = header[16..24].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    if length > MAX_TABLE_BYTES {
        return Err(PlanError::Malformed(format!(
            "a table of {length} bytes, the limit is {MAX_TABLE_BYTES}"
        )));
    }
    let end = HEADER_BYTES + length as usize;
    let json = file.get(HEADER_BYTES..end).ok_or_else(|| truncated("the table", end as u64))?;
    if header[12..16] != [0; 4] || Sha256::digest(json)[..] != header[24..56] || header[56..] != [0; 8] {
        return Err(PlanError::Checksum { what: "the table".into() });
    }
    let table: Table = serde_json::from_slice(json).map_err(|e| PlanError::Malformed(e.to_string()))?;
    if let Some(p) = table.profiles.iter().find(|p| !p.batch.is_ordered() || !p.tokens.is_ordered()) {
        return Err(PlanError::Malformed(format!("the profile {p:?} is not ascending from 1")));
    }
    Ok(table)
}

/// A section's bytes, verified.
fn content(section: &Section, plan: &Path, map: &Mapping) -> Result<Mapping, PlanError> {
    let what = format!("'{}'", section.name);
    let content = match &section.place {
        Place::Inline(begin) => {
            let have = map.bytes().len() as u64;
            let end = begin.checked_add(section.bytes);
            let end = end.filter(|_| begin % ALIGNMENT == 0);
            let end =
                end.ok_or_else(|| PlanError::Malformed(format!("{what} cannot begin at byte {begin}")))?;
            if end > have {
                return Err(PlanError::Truncated { what, end, have });
            }
            map.part(*begin as usize..end as usize)
        }
        Place::Beside(path) => {
            let fail = |problem: String| PlanError::Reference { path: path.clone(), problem };
            if let Some(problem) = too_far(path) {
                return Err(fail(problem));
            }
            let file = plan.parent().unwrap_or(Path::new("")).join(path);
            // What is no file (a pipe, a device) might never end, or never begin.
            if !std::fs::metadata(&file).map_err(|e| fail(format!("cannot be read: {e}")))?.is_file() {
                return Err(fail("is no file".into()));
            }
            let map = Mapping::open(&file).map_err(|e| fail(format!("cannot be read: {e}")))?;
            let have = map.bytes().len() as u64;
            if have != section.bytes {
                return Err(fail(format!("has {have} bytes, the plan was written for {}", section.bytes)));
            }
            map
        }
    };
    if hex(&Sha256::digest(content.bytes())) != section.sha256 {
        return Err(PlanError::Checksum { what });
    }
    Ok(content)
}

/// Folders that a reference may climb: from a version to its model, and to the repository.
const MAX_CLIMB: usize = 2;

/// Why a plan must not refer to a path. A plan may come from anywhere, so that it does not choose freely what is opened: only
/// what lies beside it, in its model, or in another model of the repository.
pub(super) fn too_far(path: &str) -> Option<String> {
    let mut components = Path::new(path).components().filter(|c| *c != Component::CurDir).peekable();
    let mut climbed = 0;
    while components.next_if_eq(&Component::ParentDir).is_some() {
        climbed += 1;
    }
    if components.peek().is_none() || !components.all(|c| matches!(c, Component::Normal(_))) {
        return Some("is no relative path with '..' at its front only".into());
    }
    (climbed > MAX_CLIMB).then(|| {
        format!("leaves the model repository: at most {MAX_CLIMB} folders up, to the model and to the repository, are allowed")
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}
