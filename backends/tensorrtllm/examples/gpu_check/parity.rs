//! What the engine computes for the models of a folder, in every way a step can run, written down for `parity.py`, which
//! made the models and holds the results against PyTorch.
//!
//! ```text
//! DIR/MODEL/config.json, model.safetensors, prompts.json {"prompts": [[id]], "texts": [[id]], "ways": bool}
//! DIR/MODEL/out/MODE.json {"sequences": [[id]], "first": [position]}, MODE.f32: a row of logits for each position
//! ```

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use trireme_llm::checkpoint::{Architecture, Checkpoint};
use trireme_llm::executor::{SlotSampling, StepOutput};
use trireme_tensorrtllm::{CudaExecutor, EarlyLaunch, Options, Source};

use crate::Outcome;
use crate::driver::Driver;

type Tokens = Vec<u32>;

/// Tokens that every text gets.
const ROUNDS: usize = 40;

#[derive(serde::Deserialize)]
struct Prompts {
    prompts: Vec<Tokens>,
    texts: Vec<Tokens>,
    /// Whether the model is run with each option of the executor.
    ways: bool,
}

pub(crate) fn run() -> Outcome {
    let dir = std::env::var("PARITY_DIR").map_err(|_| "PARITY_DIR names the folder that parity.py made")?;
    let mut models: Vec<_> = fs::read_dir(&dir)?.collect::<Result<Vec<_>, _>>()?;
    models.sort_by_key(fs::DirEntry::file_name);
    for model in models.iter().filter(|m| m.path().join("config.json").exists()) {
        one(&model.path())?;
    }
    Ok(())
}

fn options(texts: usize) -> Options {
    Options {
        max_slots: texts.max(4),
        max_step_tokens: 512,
        max_kv_tokens: Some(64 * 1024),
        tune: false,
        kernel_cache: Some(crate::bench::compiled()),
        ..Options::default()
    }
}

fn one(dir: &Path) -> Outcome {
    let checkpoint = Checkpoint::open(dir)?;
    let Architecture::Decoder(config) = &checkpoint.architecture else { return Err("no decoder".into()) };
    let Prompts { prompts, texts, ways } = serde_json::from_slice(&fs::read(dir.join("prompts.json"))?)?;
    let out = Out { dir: dir.join("out"), vocab: config.vocab_size };
    fs::create_dir_all(&out.dir)?;
    let load = |options: &Options| -> Result<Driver, Box<dyn std::error::Error>> {
        Ok(Driver::new(CudaExecutor::load(config, &Source::Checkpoint(&checkpoint), options)?))
    };
    let base = options(texts.len());
    let mut driver = load(&base)?;
    for (mode, piece) in
        [("whole", 512), ("pieces-128", 128), ("pieces-64", 64), ("pieces-30", 30), ("pieces-7", 7)]
    {
        let short = if piece == 7 { 2 } else { prompts.len() };
        out.write(mode, context(&mut driver, &prompts[..short], piece))?;
    }
    out.write("prefix", prefix(&mut driver, &prompts[0]))?;
    for count in [1, 5, 14, 16, 17, 24, texts.len()] {
        let texts = &texts[..count.min(texts.len())];
        let alone = generate(&mut driver, texts, false);
        let two = generate(&mut driver, texts, true);
        if alone.sequences != two.sequences {
            return Err(format!("{}: two steps in flight change the texts", dir.display()).into());
        }
        out.write(&format!("texts-{count}"), alone)?;
    }
    drop(driver);
    if !ways {
        return Ok(());
    }
    for (name, options) in [
        ("no-graphs", Options { graphs: false, ..base.clone() }),
        ("no-early", Options { early: EarlyLaunch::OFF, ..base.clone() }),
        ("cublaslt", Options { skinny_rows: 0, ..base.clone() }),
        ("tuned", Options { tune: true, ..base.clone() }),
        ("no-sm90-decode", Options { sm90_decode: false, ..base.clone() }),
        ("mma-prefill", Options { sm90_prefill: false, ..base.clone() }),
        ("deterministic", Options { deterministic: true, ..base.clone() }),
    ] {
        let mut driver = load(&options)?;
        out.write(&format!("{name}-whole"), context(&mut driver, &prompts, 512))?;
        let mut before: Option<Judged> = None;
        for count in [20, 3] {
            let judged = generate(&mut driver, &texts[..count], false);
            if let Some(before) = before.filter(|_| options.deterministic) {
                // The logits of a text in other company, to the last bit.
                let same = |i: usize| {
                    let (a, b) = (&before.logits[i], &judged.logits[i]);
                    let n = a.len().min(b.len());
                    n > 0 && a[..n] == b[..n]
                };
                if let Some(i) = (0..count).find(|i| !same(*i)) {
                    return Err(format!("text {i} depends on its company").into());
                }
                println!("deterministic: {count} texts are the same to the last bit among 20");
            }
            let copy = Judged { logits: judged.logits.clone(), sequences: Vec::new(), first: Vec::new() };
            before = Some(copy);
            out.write(&format!("{name}-texts-{count}"), judged)?;
        }
    }
    Ok(())
}

/// Sequences with the logits behind their positions from `first` on.
struct Judged {
    sequences: Vec<Tokens>,
    first: Vec<usize>,
    logits: Vec<Vec<f32>>,
}

struct Out {
    dir: std::path::PathBuf,
    vocab: usize,
}

impl Out {
    fn write(&self, mode: &str, judged: Judged) -> Outcome {
        let text = serde_json::json!({"sequences": judged.sequences, "first": judged.first});
        fs::write(self.dir.join(format!("{mode}.json")), text.to_string())?;
        let mut file = BufWriter::new(File::create(self.dir.join(format!("{mode}.f32")))?);
        for row in judged.logits {
            assert!(row.len().is_multiple_of(self.vocab));
            for value in row {
                file.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(file.flush()?)
    }
}

fn greedy() -> SlotSampling {
    SlotSampling { logprobs: Some(2), ..SlotSampling::default() }
}

/// Logits of whole prompts, read side by side in pieces.
fn context(driver: &mut Driver, prompts: &[Tokens], piece: usize) -> Judged {
    let mut logits: Vec<Vec<f32>> = vec![Vec::new(); prompts.len()];
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    for group in 0..prompts.len().div_ceil(4) {
        let slots: Vec<usize> = (group * 4..prompts.len().min(group * 4 + 4)).collect();
        for (slot, &i) in slots.iter().enumerate() {
            driver.admit(slot as u32, &prompts[i], greedy());
        }
        for at in (0..longest).step_by(piece) {
            let mut any = false;
            for (slot, &i) in slots.iter().enumerate().filter(|(_, i)| at < prompts[**i].len()) {
                let end = prompts[i].len().min(at + piece);
                // Steps take 512 rows: one piece each, unless they are small.
                if piece * slots.len() > 512 && any {
                    take(driver.step(), &slots, &mut logits);
                }
                driver.chunk(slot as u32, &prompts[i][at..end], end == prompts[i].len(), true);
                any = true;
            }
            if any {
                take(driver.step(), &slots, &mut logits);
            }
        }
        (0..slots.len()).for_each(|slot| driver.free(slot as u32));
    }
    Judged { sequences: prompts.to_vec(), first: vec![0; prompts.len()], logits }
}

fn take(out: StepOutput, slots: &[usize], logits: &mut [Vec<f32>]) {
    for (slot, rows) in out.context_logits {
        logits[slots[slot.0 as usize]].extend(rows);
    }
}

/// A prompt whose beginning was read for another sequence.
fn prefix(driver: &mut Driver, prompt: &[u32]) -> Judged {
    let shared = prompt.len() / 2 / 32;
    driver.admit(0, prompt, greedy());
    driver.chunk(0, prompt, true, false);
    driver.step();
    driver.admit(1, prompt, greedy());
    driver.share(0, 1, shared);
    driver.chunk(1, &prompt[shared * 32..], true, true);
    let logits = driver.step().context_logits.into_iter().map(|(_, rows)| rows).collect();
    driver.free(1);
    driver.free(0);
    Judged { sequences: vec![prompt.to_vec()], first: vec![shared * 32], logits }
}

/// Greedy texts of several sequences: a part starts at once, the others join while those decode. One step at a time,
/// with the logits of each token, or two in flight.
fn generate(driver: &mut Driver, prompts: &[Tokens], two: bool) -> Judged {
    let mut texts = prompts.to_vec();
    let mut logits: Vec<Vec<f32>> = vec![Vec::new(); prompts.len()];
    let mut live: Vec<u32> = Vec::new();
    for (slot, prompt) in prompts.iter().enumerate() {
        driver.admit(slot as u32, prompt, greedy());
    }
    let mut collect = |driver: &mut Driver, out: Option<StepOutput>| {
        let Some(out) = out else { return };
        if !two {
            for (row, s) in driver.executor.logits(out.sampled.len()).into_iter().zip(&out.sampled) {
                logits[s.slot.0 as usize].extend(row);
            }
        }
        for s in out.sampled {
            texts[s.slot.0 as usize].push(s.token.expect("a token"));
        }
    };
    let mut run = |driver: &mut Driver| {
        let out = if two { driver.submit() } else { Some(driver.step()) };
        collect(driver, out);
    };
    let mut waiting = (0..prompts.len() as u32).collect::<VecDeque<_>>();
    for round in 0..ROUNDS {
        if round % 5 == 0 {
            for _ in 0..prompts.len().div_ceil(4).max(1) {
                if let Some(slot) = waiting.pop_front() {
                    driver.chunk(slot, &prompts[slot as usize], true, false);
                    driver.decode(&live);
                    live.push(slot);
                    run(driver);
                }
            }
        }
        driver.decode(&live);
        run(driver);
    }
    for out in driver.drain() {
        collect(driver, Some(out));
    }
    (0..prompts.len()).for_each(|slot| driver.free(slot as u32));
    // The logits behind the last token of a text are not known.
    let first = prompts.iter().map(|p| p.len() - 1).collect();
    for text in &mut texts {
        text.pop();
    }
    Judged { sequences: texts, first, logits }
}
