//! What a table was timed with: where any of it differs, its times say nothing.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trireme_llm::checkpoint::DecoderConfig;

use crate::executor::EarlyLaunch;

/// The GPU, the software on it, and the model's sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The GPU's name.
    pub device: String,
    /// Compute capability.
    pub capability: (i32, i32),
    pub multiprocessors: usize,
    /// CUDA's version as the driver gives it.
    pub driver: i32,
    /// The version of cuBLASLt, whose algorithms no other one knows.
    pub cublaslt: usize,
    /// SHA-256 of the kernels' machine code, in hexadecimal.
    pub kernels: String,
    /// Whether steps run as graphs.
    pub graphs: bool,
    /// Which kernels start before the one in front has ended.
    pub early: EarlyLaunch,
    /// How things were timed: [`Key::TIMING`] where they are now.
    pub timing: u32,
    /// Positions of each text while decode steps were timed.
    pub context: usize,
    pub model: ModelShape,
}

/// All that products and launches of a decoder depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub head_norms: bool,
}

impl ModelShape {
    pub fn of(c: &DecoderConfig) -> Self {
        Self {
            layers: c.num_layers,
            hidden: c.hidden_size,
            intermediate: c.intermediate_size,
            heads: c.num_heads,
            kv_heads: c.num_kv_heads,
            head_dim: c.head_dim,
            vocab: c.vocab_size,
            head_norms: c.qk_norm,
        }
    }

    /// Elements of all queries, keys and values.
    pub(super) fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

impl Key {
    /// The number of how things are timed: another one whenever a time is of something else, or what is chosen among.
    pub const TIMING: u32 = 2;

    /// Why a table of `other` is of no use here; `None` if it is.
    pub fn differs_from(&self, other: &Self) -> Option<String> {
        let parts: [(&str, String, String); 11] = [
            ("device", format!("{:?}", other.device), format!("{:?}", self.device)),
            ("compute capability", format!("{:?}", other.capability), format!("{:?}", self.capability)),
            ("multiprocessors", other.multiprocessors.to_string(), self.multiprocessors.to_string()),
            ("driver's CUDA", other.driver.to_string(), self.driver.to_string()),
            ("cuBLASLt", other.cublaslt.to_string(), self.cublaslt.to_string()),
            ("kernels", short(&other.kernels), short(&self.kernels)),
            ("use of graphs", other.graphs.to_string(), self.graphs.to_string()),
            ("early launch", format!("{:?}", other.early), format!("{:?}", self.early)),
            ("way of timing", other.timing.to_string(), self.timing.to_string()),
            ("length of texts", other.context.to_string(), self.context.to_string()),
            ("model", format!("{:?}", other.model), format!("{:?}", self.model)),
        ];
        let different = parts.into_iter().find(|(_, there, here)| there != here);
        different
            .map(|(what, there, here)| format!("was timed with another {what}: {there}, here it is {here}"))
    }

    /// A name for a file, the same for equal keys only.
    pub fn file_name(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        let sum = Sha256::digest(text.as_bytes());
        let readable: String = self
            .device
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(40)
            .collect();
        let sum: String = sum.iter().take(10).map(|b| format!("{b:02x}")).collect();
        format!("{readable}-{sum}.tuning")
    }
}

fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}
