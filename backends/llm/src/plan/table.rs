//! The table of a plan's sections.

use serde::{Deserialize, Serialize};

/// All that the table says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) sections: Vec<Section>,
    #[serde(default)]
    pub(super) profiles: Vec<Profile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    pub(super) kind: Kind,
    /// The name of a text or a weight file; the device of a tuning table.
    pub(super) name: String,
    /// Where it begins in the plan, or the file beside it.
    pub(super) place: Place,
    pub(super) bytes: u64,
    /// In hexadecimal.
    pub(super) sha256: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Text,
    Safetensors,
    Gguf,
    Tuning,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    Inline(u64),
    /// A path from the plan's folder.
    Beside(String),
}

/// A shape profile: what a batch and its tokens may be, as TensorRT states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub batch: Range,
    pub tokens: Range,
}

/// Smallest, best and largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    pub min: u32,
    pub opt: u32,
    pub max: u32,
}

impl Range {
    pub(super) fn is_ordered(&self) -> bool {
        self.min >= 1 && self.min <= self.opt && self.opt <= self.max
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    /// `BATCH,TOKENS`, each `MIN:OPT:MAX`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "the profile '{text}' must be MIN:OPT:MAX,MIN:OPT:MAX, of the batch and of the tokens, ascending from 1"
            )
        };
        let range = |text: &str| {
            let numbers: Vec<u32> =
                text.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
            let [min, opt, max] = numbers[..] else { return Err(wrong()) };
            Some(Range { min, opt, max }).filter(Range::is_ordered).ok_or_else(wrong)
        };
        let (batch, tokens) = text.split_once(',').ok_or_else(wrong)?;
        Ok(Self { batch: range(batch)?, tokens: range(tokens)? })
    }
}
