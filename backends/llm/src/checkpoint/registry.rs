//! The known architectures, registered where they are written.

use super::config::{Architecture, RopeLayout};
use super::error::CheckpointErrorKind as Kind;
use super::gguf::Metadata;
use super::hf::HfFolder;
use super::weight::Weight;

/// A weight that an architecture needs: its canonical name and shape.
pub(super) type Expected = (String, Vec<usize>);

/// The shape of a tensor by its name in the file, if it is there.
pub(super) type ShapeOf<'a> = dyn Fn(&str) -> Option<Vec<usize>> + 'a;

/// How one architecture is recognised and read.
pub(super) struct ArchitectureEntry {
    /// The name in `architectures` of a Hugging Face `config.json`.
    pub(super) hf_name: &'static str,
    pub(super) from_hf: fn(&HfFolder) -> Result<Architecture, Kind>,
    /// Taken off the names of weights where it is there.
    pub(super) optional_prefix: &'static str,
    pub(super) gguf: Option<GgufEntry>,
    /// All weights that must be there. Lazy, so that a false number of layers costs nothing.
    pub(super) expected: fn(&Architecture) -> Box<dyn Iterator<Item = Expected> + '_>,
}

/// The same for GGUF files.
pub(super) struct GgufEntry {
    /// The value of `general.architecture`.
    pub(super) name: &'static str,
    pub(super) rope_layout: RopeLayout,
    /// From metadata, shapes, and `rope_freqs.weight` if it is there.
    pub(super) from_gguf: fn(&Metadata, &ShapeOf<'_>, Option<&Weight>) -> Result<Architecture, Kind>,
    /// The Hugging Face name of a GGUF tensor, `None` for tensors that are not weights of the model.
    pub(super) canonical_name: fn(&str) -> Option<String>,
}

inventory::collect!(ArchitectureEntry);

/// All entries by name. Two of the same name are a programming error that every open reports.
fn entries() -> Result<Vec<&'static ArchitectureEntry>, Kind> {
    let mut entries: Vec<_> = inventory::iter::<ArchitectureEntry>().collect();
    entries.sort_by_key(|e| e.hf_name);
    for pair in entries.windows(2) {
        if pair[0].hf_name == pair[1].hf_name {
            return Err(Kind::Unsupported(format!("registering architecture '{}' twice", pair[0].hf_name)));
        }
    }
    Ok(entries)
}

/// The entry of the first of the `names` from a `config.json` that is known.
pub(super) fn by_hf_names(names: &[String]) -> Result<&'static ArchitectureEntry, Kind> {
    let entries = entries()?;
    let found = names.iter().find_map(|n| entries.iter().find(|e| e.hf_name == n));
    found.copied().ok_or_else(|| Kind::UnknownArchitecture {
        found: names.join("', '"),
        known: list(entries.iter().map(|e| e.hf_name)),
    })
}

/// All names from a `config.json` that are known.
pub(super) fn hf_names() -> Result<String, Kind> {
    Ok(list(entries()?.iter().map(|e| e.hf_name)))
}

/// The entry of a GGUF architecture.
pub(super) fn by_gguf_name(name: &str) -> Result<(&'static ArchitectureEntry, &'static GgufEntry), Kind> {
    let entries = entries()?;
    let mut known: Vec<_> = entries.iter().filter_map(|e| Some((*e, e.gguf.as_ref()?))).collect();
    known.sort_by_key(|(_, g)| g.name);
    let found = known.iter().find(|(_, g)| g.name == name);
    found.copied().ok_or_else(|| Kind::UnknownArchitecture {
        found: name.to_owned(),
        known: list(known.iter().map(|(_, g)| g.name)),
    })
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unknown_names_list_the_known() {
        let err = by_hf_names(&["MambaForCausalLM".into()]).err().unwrap().to_string();
        expect_test::expect![
            "architecture 'MambaForCausalLM' is not known; known are: BertModel, LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"
        ]
        .assert_eq(&err);
        let err = by_gguf_name("mamba").err().unwrap().to_string();
        expect_test::expect!["architecture 'mamba' is not known; known are: llama, qwen2, qwen3"]
            .assert_eq(&err);
    }
}
