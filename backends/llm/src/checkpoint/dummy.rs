//! A model without its weights: random ones of the shapes that a `config.json` asks for. Speed does not depend on what
//! weights are worth, so that any shape can be measured and tried without a download.

use std::path::Path;

use half::{bf16, f16};

use super::config::RopeLayout;
use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::files::Files;
use super::hf::HfFolder;
use super::index::WeightIndex;
use super::mapping::Mapping;
use super::open::Checkpoint;
use super::registry::{self, Expected};
use super::text::TextFiles;
use super::weight::Weight;
use super::weight_type::WeightType;
use crate::sampling::philox4x32;

/// Standard deviation of the weights: what models of this kind are trained from.
const DEVIATION: f32 = 0.02;
/// Weights begin at different places of the same numbers, this many elements apart at most.
const SHIFTS: u64 = 1 << 16;
/// Most tensors that a configuration may ask for.
const MAX_TENSORS: usize = 1 << 16;
const SEED: u32 = 0x7472_6972;
/// Of a sum of four bytes less 510: four times the variance of a byte is (256² - 1) / 3.
const SCALE: f32 = DEVIATION / 147.801;

/// How the numbers of a random weight come about, for an engine that makes them where it needs them.
///
/// Element `i` is number `n = start + i`: word `n % 4` of Philox 4x32-10 with the counter `n / 4` and the key `(seed, 0)`;
/// the sum of its four bytes less 510, times `scale`, in f32; then as the checkpoint's type has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DummyNumbers {
    pub seed: u32,
    pub start: u64,
    pub scale: f32,
}

impl DummyNumbers {
    /// Those of the weight with this name; `None` for a norm, which is all ones.
    pub fn of(name: &str) -> Option<Self> {
        (!is_norm(name)).then(|| Self { seed: SEED, start: shift(name), scale: SCALE })
    }
}

impl Checkpoint {
    /// As [`Self::open`], or for the `load_format` `dummy` the model of a folder's `config.json` with random weights, which
    /// are the same every time. What of the folder's text files is there is used; without a tokenizer each byte of a text
    /// is a token.
    ///
    /// All weights are parts of one array, as long as the largest of them, so that the checkpoint itself stays small. It is
    /// made when the first of them is looked at; [`DummyNumbers`] says what it holds.
    ///
    /// # Errors
    /// There is no `config.json`, it is not as it must be, or the weights would not fit in memory.
    pub fn open_as(path: &Path, load_format: Option<&str>) -> Result<Self, CheckpointError> {
        if load_format != Some("dummy") {
            return Self::open(path);
        }
        let files = Files::Folder(path.to_path_buf());
        let folder = HfFolder::open(files.clone())?.ok_or_else(|| {
            Kind::NotACheckpoint("it holds no config.json, of which dummy weights are made".into()).at(path)
        })?;
        Self::dummy(&files, &folder).map_err(|kind| kind.at(path)).and_then(|mut made| {
            made.text = TextFiles::of_folder(&files)?.or_bytes(&made.architecture)?;
            Ok(made)
        })
    }

    fn dummy(files: &Files, folder: &HfFolder) -> Result<Self, Kind> {
        let entry = registry::by_hf_names(&folder.architectures()?)?;
        let architecture = (entry.from_hf)(folder)?;
        let ty = weight_type(folder)?;
        let weights = random((entry.expected)(&architecture), ty, available_memory())?;
        Ok(Self {
            architecture,
            rope_layout: RopeLayout::Half,
            source: files.root().to_path_buf(),
            weights,
            text: TextFiles::default(),
            tuning: Vec::new(),
        })
    }
}

/// The type that the configuration says the weights have.
fn weight_type(folder: &HfFolder) -> Result<WeightType, Kind> {
    let config = folder.config();
    let stated = config.get("dtype").or(config.get("torch_dtype")).and_then(serde_json::Value::as_str);
    match stated {
        None | Some("bfloat16" | "auto") => Ok(WeightType::BF16),
        Some("float16") => Ok(WeightType::F16),
        Some("float32") => Ok(WeightType::F32),
        Some(other) => Err(Kind::Unsupported(format!("dtype '{other}' of config.json for dummy weights"))),
    }
}

/// Random weights of these names and shapes, of which an engine will make `memory` bytes at most.
fn random(
    expected: impl Iterator<Item = Expected>,
    ty: WeightType,
    memory: Option<u64>,
) -> Result<WeightIndex, Kind> {
    let (mut wanted, mut total, mut longest) = (Vec::new(), 0u64, 0u64);
    for (name, shape) in expected {
        let bytes = ty.tensor_bytes(&shape).map(|bytes| bytes as u64);
        let bytes = bytes.and_then(|bytes| Some((bytes, total.checked_add(bytes)?)));
        let Some((bytes, sum)) = bytes.filter(|(_, sum)| memory.is_none_or(|memory| *sum <= memory)) else {
            let room = memory.map(|memory| format!(" of {memory} bytes that are free")).unwrap_or_default();
            return Err(Kind::Malformed(format!(
                "with '{name}' its weights are larger than the memory{room}"
            )));
        };
        (total, longest) = (sum, longest.max(bytes));
        wanted.push((name, shape, bytes as usize));
        if wanted.len() > MAX_TENSORS {
            return Err(Kind::Malformed(format!("it has more than {MAX_TENSORS} tensors")));
        }
    }
    let element = ty.row_bytes(1) as u64;
    let count = longest / element + SHIFTS;
    let numbers = Mapping::lazy((count * element) as usize, move || elements(ty, count, normals));
    let widest = wanted.iter().filter(|(name, ..)| is_norm(name)).map(|(.., bytes)| *bytes as u64).max();
    let width = widest.unwrap_or(0) / element;
    let ones = Mapping::lazy((width * element) as usize, move || elements(ty, width, |_| [1.0; 4]));
    let mut weights = WeightIndex::default();
    for (name, shape, bytes) in wanted {
        let (source, at) = match is_norm(&name) {
            true => (&ones, 0),
            false => (&numbers, (shift(&name) * element) as usize),
        };
        weights.add(Weight::mapped(name, ty, shape, source.clone(), at..at + bytes))?;
    }
    Ok(weights)
}

fn is_norm(name: &str) -> bool {
    name.ends_with("norm.weight") || name.ends_with("LayerNorm.weight")
}

/// Where a weight begins: by its name (FNV-1a), so that no two layers are alike.
fn shift(name: &str) -> u64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash % SHIFTS
}

/// Numbers `4 * at` and on: sums of four bytes, which are close to normal, with mean 0 and the deviation.
fn normals(at: u64) -> [f32; 4] {
    philox4x32([at as u32, (at >> 32) as u32, 0, 0], [SEED, 0]).map(|word| {
        let sum: u32 = word.to_le_bytes().into_iter().map(u32::from).sum();
        (sum as f32 - 510.0) * SCALE
    })
}

/// `count` numbers, of which `four` gives four at a time.
fn elements(ty: WeightType, count: u64, four: impl Fn(u64) -> [f32; 4]) -> Vec<u8> {
    let values = (0..count.div_ceil(4)).flat_map(four).take(count as usize);
    let mut out = Vec::with_capacity(count as usize * ty.row_bytes(1));
    match ty {
        WeightType::F16 => values.for_each(|value| out.extend(f16::from_f32(value).to_le_bytes())),
        WeightType::BF16 => values.for_each(|value| out.extend(bf16::from_f32(value).to_le_bytes())),
        _ => values.for_each(|value| out.extend(value.to_le_bytes())),
    }
    out
}

/// Bytes of memory that a process can get without others being driven out, where the system says.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn folder(config: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        dir
    }

    fn config(more: &str) -> String {
        format!(
            r#"{{"architectures":["LlamaForCausalLM"],"vocab_size":300,"hidden_size":64,"intermediate_size":96,
            "num_hidden_layers":2,"num_attention_heads":4,"eos_token_id":[298, 5]{more}}}"#
        )
    }

    fn open(config: &str) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open_as(folder(config).path(), Some("dummy"))
    }

    #[test]
    fn every_weight_is_there_and_always_the_same() {
        let (one, two) = (open(&config("")).unwrap(), open(&config("")).unwrap());
        assert_eq!(one.weights().count(), 2 * 9 + 3);
        for weight in one.weights() {
            assert_eq!(weight.bytes(), two.weight(&weight.name).unwrap().bytes(), "{}", weight.name);
            assert_eq!(weight.ty, WeightType::BF16);
        }
        let [a, b] = ["0", "1"].map(|n| one.weight(&format!("model.layers.{n}.mlp.up_proj.weight")).unwrap());
        assert_ne!(a.bytes(), b.bytes());
        assert!(one.weight("model.norm.weight").unwrap().to_f32().iter().all(|x| *x == 1.0));
        let wide = open(&config(r#","torch_dtype":"float32""#)).unwrap();
        assert_eq!(wide.weight("lm_head.weight").unwrap().ty, WeightType::F32);
    }

    #[test]
    fn weights_are_as_wide_as_they_should_be() {
        let values = open(&config("")).unwrap().weight("lm_head.weight").unwrap().to_f32();
        let count = values.len() as f32;
        let mean = values.iter().sum::<f32>() / count;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count).sqrt();
        assert!(mean.abs() < 1e-3 && (deviation - DEVIATION).abs() < 1e-3, "{mean} {deviation}");
    }

    #[test]
    fn numbers_are_those_that_are_described() {
        let checkpoint = open(&config("")).unwrap();
        for name in ["lm_head.weight", "model.layers.1.self_attn.q_proj.weight"] {
            let (values, numbers) =
                (checkpoint.weight(name).unwrap().to_f32(), DummyNumbers::of(name).unwrap());
            for i in [0, 1, 2, 3, 1000, values.len() - 1] {
                let n = numbers.start + i as u64;
                let words = philox4x32([(n / 4) as u32, (n >> 34) as u32, 0, 0], [numbers.seed, 0]);
                let bytes = words[(n % 4) as usize].to_le_bytes();
                let sum = bytes.into_iter().map(f32::from).sum::<f32>() - 510.0;
                assert_eq!(values[i], bf16::from_f32(sum * numbers.scale).to_f32(), "{name} {i}");
            }
        }
        assert_eq!(DummyNumbers::of("model.norm.weight"), None);
    }

    #[test]
    fn a_text_without_a_tokenizer_is_its_bytes() {
        let tokenizer = open(&config("")).unwrap().tokenizer().unwrap();
        assert_eq!(tokenizer.vocab_size(), 300);
        let ids = tokenizer.encode("hé!", true).unwrap();
        assert_eq!(ids, [u32::from(b'h'), 0xc3, 0xa9, u32::from(b'!')]);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "hé!");
        assert_eq!(tokenizer.decode(&[298, 104, 299, 5], true).unwrap(), "h 299");
        let small = open(&config("").replace("300", "70").replace("[298, 5]", "1")).unwrap();
        assert_eq!(small.tokenizer().unwrap().encode("A~!", false).unwrap(), [65, 33]);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let said = |config: &str| open(config).unwrap_err().kind.to_string();
        assert!(said(&config(r#","dtype":"float8""#)).contains("dtype 'float8'"));
        let layers = config("").replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":2000000000");
        let error = said(&layers);
        assert!(error.contains("larger than the memory") || error.contains("more than 65536"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let error = Checkpoint::open_as(dir.path(), Some("dummy")).unwrap_err().to_string();
        assert!(error.contains("no config.json"), "{error}");
        assert!(Checkpoint::open_as(dir.path(), Some("auto")).is_err());
        let shape = vec![1 << 20, 1 << 20];
        let one = || std::iter::once(("w".to_owned(), shape.clone()));
        let error = random(one(), WeightType::BF16, Some(1 << 30)).err().unwrap().to_string();
        assert!(
            error.contains("with 'w' its weights are larger than the memory of 1073741824 bytes"),
            "{error}"
        );
    }
}
