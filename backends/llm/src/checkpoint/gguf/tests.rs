#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::{Checkpoint, WeightType};

/// Writes the parts of a GGUF file.
#[derive(Default, Clone)]
struct Writer(Vec<u8>);

impl Writer {
    fn header(version: u32, tensors: u64, pairs: u64) -> Self {
        let mut w = Self(b"GGUF".to_vec());
        w.0.extend(version.to_le_bytes());
        w.u64(tensors).u64(pairs);
        w
    }
    fn u32(&mut self, n: u32) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn u64(&mut self, n: u64) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn text(&mut self, s: &str) -> &mut Self {
        self.u64(s.len() as u64);
        self.0.extend(s.as_bytes());
        self
    }
    fn tensor(&mut self, name: &str, dims: &[u64], ty: u32, offset: u64) -> &mut Self {
        self.text(name).u32(dims.len() as u32);
        dims.iter().for_each(|d| _ = self.u64(*d));
        self.u32(ty).u64(offset)
    }
    fn pad(&mut self) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(32), 0);
        self
    }
    fn open(&self) -> Result<Gguf, CheckpointError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.0).unwrap();
        Gguf::open(file.path())
    }
    fn error(&self) -> String {
        self.open().err().expect("the file should be refused").kind.to_string()
    }
}

fn sample() -> Writer {
    let mut w = Writer::header(3, 2, 3);
    w.text("general.architecture").u32(8).text("llama");
    w.text("n").u32(4).u32(7);
    w.text("list").u32(9).u32(8).u64(2).text("a").text("bc");
    w.tensor("q", &[32, 2], 3, 0).tensor("v", &[3], 0, 64).pad();
    w.0.extend((0..76).map(|i| i as u8));
    w
}

#[test]
fn a_file_is_read() {
    let file = sample().open().unwrap();
    assert_eq!(file.metadata.str("general.architecture").unwrap(), "llama");
    assert_eq!(file.metadata.size("n").unwrap(), 7);
    assert_eq!(file.metadata.strings("list").unwrap(), ["a", "bc"]);
    let q = file.weights.get("q").unwrap();
    assert_eq!((q.ty, q.shape.as_slice(), q.row(1)[0]), (WeightType::Q4_1, &[2, 32][..], 20));
    assert_eq!(file.weights.get("v").unwrap().bytes()[0], 64);
}

#[test]
fn a_cut_file_names_the_tensor_and_the_bytes() {
    let mut w = sample();
    w.0.truncate(w.0.len() - 5);
    assert_eq!(w.error(), "is cut off: tensor 'v' misses its last 5 bytes; fetch the file again");
    w.0.truncate(w.0.len() - 25);
    assert!(w.error().contains("tensor 'q'") || w.error().contains("tensor 'v' misses its last 12 bytes"));
}

#[test]
fn false_headers_are_refused() {
    let header = |version, tensors, pairs| Writer::header(version, tensors, pairs);
    assert!(header(3, 0, u64::MAX).error().contains("metadata pairs are claimed"));
    assert!(header(3, u64::MAX, 0).error().contains("tensors are claimed"));
    assert_eq!(header(1, 0, 0).error(), "GGUF version 1 is not supported yet");
    assert_eq!(
        header(3u32.swap_bytes(), 0, 0).error(),
        "a GGUF file of big-endian numbers is not supported yet"
    );
    assert!(Writer(b"PK\x03\x04".to_vec()).error().contains("does not begin with 'GGUF'"));

    let mut deep = header(3, 0, 1);
    deep.text("k").u32(9);
    (0..9).for_each(|_| _ = deep.u32(9).u64(1));
    assert!(deep.error().contains("nested deeper"), "{}", deep.error());

    let mut overflow = header(3, 1, 0);
    overflow.tensor("t", &[1 << 40, 1 << 40], 0, 0);
    assert!(overflow.error().contains("cannot have the shape"), "{}", overflow.error());

    let mut unknown = header(3, 1, 0);
    unknown.tensor("t", &[256], 13, 0);
    assert!(unknown.error().contains("tensor type Q5_K (of 't'"), "{}", unknown.error());

    let mut twice = header(3, 0, 2);
    twice.text("k").u32(7).0.push(1);
    twice.text("k").u32(7).0.push(1);
    assert!(twice.error().contains("the key 'k' is there twice"));
}

#[test]
fn a_part_of_a_model_says_how_to_join_it() {
    let mut part = Writer::header(3, 0, 3);
    part.text("general.architecture").u32(8).text("llama");
    part.text("split.no").u32(2).0.extend(1u16.to_le_bytes());
    part.text("split.count").u32(2).0.extend(3u16.to_le_bytes());
    let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    file.write_all(&part.0).unwrap();
    let error = Checkpoint::open(file.path()).unwrap_err().to_string();
    assert!(error.contains("it is part 2 of 3 of a model: join them with"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn corrupt_files_are_answered(changes in prop::collection::vec((0usize..300, any::<u8>()), 1..6), cut in 0usize..300) {
        let mut w = sample();
        let n = w.0.len();
        for (at, byte) in changes {
            w.0[at % n] = byte;
        }
        w.0.truncate(n - cut.min(n - 1));
        let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        file.write_all(&w.0).unwrap();
        let _ = Checkpoint::open(file.path());
    }
}
