#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::read::read_table;
use super::*;
use crate::checkpoint::Checkpoint;

const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"vocab_size":4,"hidden_size":2,"intermediate_size":2,
    "num_hidden_layers":1,"num_attention_heads":1,"tie_word_embeddings":true}"#;

/// A folder with a checkpoint of the smallest shape.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    std::fs::write(dir.path().join("chat_template.jinja"), "hello").unwrap();
    let layer = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    let mut shapes: Vec<(String, Vec<usize>)> =
        layer.map(|n| (format!("model.layers.0.{n}.weight"), vec![2, 2])).into();
    for name in ["model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"] {
        shapes.push((format!("{name}.weight"), vec![2]));
    }
    shapes.push(("model.embed_tokens.weight".into(), vec![4, 2]));
    let data: Vec<u8> = (0..32).collect();
    let view = |s: &Vec<usize>| {
        let bytes = &data[..4 * s.iter().product::<usize>()];
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, s.clone(), bytes).unwrap()
    };
    let file = safetensors::serialize(shapes.iter().map(|(n, s)| (n, view(s))), None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
    dir
}

/// The bytes of an inline plan.
fn sample() -> Vec<u8> {
    let dir = folder();
    let to = dir.path().join("model.plan");
    let profiles = vec!["1:4:8,1:128:2048".parse().unwrap()];
    let tuning = vec![("H100".to_owned(), vec![1, 2, 3])];
    write(dir.path(), &to, &PlanOptions { by_reference: false, profiles, tuning }).unwrap();
    std::fs::read(to).unwrap()
}

fn open(bytes: &[u8]) -> Result<(Checkpoint, tempfile::TempDir), String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.plan"), bytes).unwrap();
    Checkpoint::open(dir.path()).map(|c| (c, dir)).map_err(|e| e.kind.to_string())
}

#[test]
fn what_is_written_is_read() {
    let (checkpoint, dir) = open(&sample()).unwrap();
    assert_eq!(checkpoint.chat_template().unwrap().text, "hello");
    assert_eq!(checkpoint.weight("model.norm.weight").unwrap().bytes(), [0, 1, 2, 3, 4, 5, 6, 7]);
    let plan = Plan::open(&dir.path().join("model.plan")).unwrap();
    assert_eq!(plan.tuning("H100"), Some(&[1, 2, 3][..]));
    assert_eq!(plan.tuning("A100"), None);
    assert_eq!((checkpoint.tuning("H100"), checkpoint.tuning("A100")), (Some(&[1, 2, 3][..]), None));
    assert_eq!(plan.profiles()[0].tokens, Range { min: 1, opt: 128, max: 2048 });
}

#[test]
fn a_device_has_one_tuning_table() {
    let dir = folder();
    let tuning = vec![("H100".to_owned(), vec![1]), ("H100".to_owned(), vec![2])];
    let options = PlanOptions { tuning, ..PlanOptions::default() };
    let error = write(dir.path(), &dir.path().join("model.plan"), &options).unwrap_err().to_string();
    assert_eq!(error, "there are two tuning tables of the device 'H100'");
}

#[test]
fn weights_may_lie_beside_it() {
    let dir = folder();
    std::fs::create_dir(dir.path().join("1")).unwrap();
    let to = dir.path().join("1/model.plan");
    write(dir.path(), &to, &PlanOptions { by_reference: true, ..PlanOptions::default() }).unwrap();
    assert!(std::fs::metadata(&to).unwrap().len() < 16 << 10);
    Checkpoint::open(&dir.path().join("1")).unwrap();
    let weights = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    let error = Checkpoint::open(&to).unwrap_err().to_string();
    assert!(
        error.ends_with("is damaged: the checksum of 'model.safetensors' does not match; copy it again"),
        "{error}"
    );
    bytes.pop();
    std::fs::write(&weights, &bytes).unwrap();
    let error = Checkpoint::open(&to).unwrap_err().to_string();
    assert!(error.contains("names weights in '../model.safetensors', which has "), "{error}");
}

#[test]
fn foreign_files_are_told_apart() {
    let error = |bytes: &[u8]| open(bytes).err().unwrap();
    assert!(error(b"ftrt\0\0\0\0 an engine").starts_with("is an engine of NVIDIA TensorRT"));
    assert!(error(b"ptrt\0\0\0\0 an engine").starts_with("is an engine of NVIDIA TensorRT"));
    assert!(error(b"GGUF\x03\0\0\0").starts_with("is no plan of Trireme"));
    let mut newer = sample();
    newer[8] = 9;
    assert!(error(&newer).starts_with("is a plan of version 9, this build reads version 1"));
    assert!(error(&sample()[..5000]).starts_with("is cut off: "));
    assert!(error(&sample()[..10]).starts_with("is cut off: the header"));
}

#[test]
fn profiles_are_ascending() {
    for text in ["", "1:2:3", "3:2:1,1:1:1", "0:1:1,1:1:1", "1:1:1,1:1", "a:b:c,1:1:1"] {
        assert!(text.parse::<Profile>().is_err(), "{text}");
    }
}

#[test]
fn every_cut_is_refused() {
    let whole = sample();
    for cut in (0..whole.len()).step_by(97).chain(whole.len() - 40..whole.len()) {
        assert!(open(&whole[..cut]).is_err(), "cut at {cut}");
    }
}

/// What of a plan means something: header and table, and each section.
fn used(file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let table = read_table(file).unwrap();
    let end = HEADER_BYTES + u64::from_le_bytes(file[16..24].try_into().unwrap()) as usize;
    let sections = table.sections.iter().map(|section| match section.place {
        table::Place::Inline(begin) => begin as usize..begin as usize + section.bytes as usize,
        table::Place::Beside(_) => 0..0,
    });
    std::iter::once(0..end).chain(sections).collect()
}

/// The same at every place where one could be missed: the zeros of the header, and each end of each section.
#[test]
fn every_end_of_every_part_is_guarded() {
    let whole = sample();
    let ranges = used(&whole);
    assert!(ranges.len() >= 4, "{ranges:?}");
    for range in ranges {
        let edges = [range.start, range.start + 12, range.end - 1, (range.start + range.end) / 2];
        for at in edges.into_iter().chain(56..HEADER_BYTES) {
            let at = at.min(range.end - 1);
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(open(&bytes).is_err(), "byte {at}");
        }
    }
}

#[test]
fn references_stay_in_the_repository() {
    for path in ["weights.gguf", "./w.gguf", "../w.gguf", "../../other/1/w.gguf", "sub/w.gguf"] {
        assert_eq!(read::too_far(path), None, "{path}");
    }
    for path in
        ["", "..", "../..", "/etc/hosts", "../../../w.gguf", "sub/../../../../w.gguf", "sub/../w.gguf"]
    {
        assert!(read::too_far(path).is_some(), "{path}");
    }
    let dir = folder();
    let to = dir.path().join("a/b/c");
    std::fs::create_dir_all(&to).unwrap();
    let options = PlanOptions { by_reference: true, ..PlanOptions::default() };
    let error = write(dir.path(), &to.join("model.plan"), &options).unwrap_err().to_string();
    assert!(error.contains("'../../../model.safetensors', which leaves the model repository"), "{error}");
    // What is found there must be a file.
    let plan = dir.path().join("a/model.plan");
    write(dir.path(), &plan, &options).unwrap();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    std::fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let error = Checkpoint::open(&plan).unwrap_err().to_string();
    assert!(error.contains("'../model.safetensors', which is no file"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A flipped bit is noticed wherever it is read; only the padding between sections is not.
    #[test]
    fn flipped_bits_are_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let whole = sample();
        let mut bytes = whole.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match open(&bytes) {
            Err(_) => {}
            Ok(_) => prop_assert!(!used(&whole).iter().any(|range| range.contains(&at)), "byte {at}"),
        }
    }

    /// Any table with a right checksum is answered without a panic and without a large allocation.
    #[test]
    fn any_table_is_answered(text in "\\{\"sections\":\\[(\\{\"kind\":\"(text|gguf)\",\"name\":\"a\",\"place\":\\{\"(inline|beside)\":(0|4096|18446744073709547520|\"x\"|\"/etc/hosts\")\\},\"bytes\":(0|1|18446744073709551615),\"sha256\":\"\"\\}){0,1}\\]\\}") {
        use sha2::Digest;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(sha2::Sha256::digest(&text));
        bytes.extend([0; 8]);
        bytes.extend(text.as_bytes());
        let _ = read_table(&bytes);
        prop_assert!(open(&bytes).is_err());
    }
}
