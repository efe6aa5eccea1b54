//! What a step launches, held against `launches.txt`: kernels, grids, clusters and where in memory each begins to read.
//! `UPDATE_EXPECT=1` writes the file anew; a change of it is a change of what runs on a GPU.

use expect_test::expect_file;
use trireme_llm::checkpoint::DecoderConfig;
use trireme_llm::executor::{Executor, StepDiff};
use trireme_tensorrtllm::{CudaExecutor, Options};

use crate::model::{config, decode, free, load, options, prefill};
use crate::recorder::Recorder;

fn run(executor: &mut CudaExecutor, step: &StepDiff) {
    let id = executor.submit(step).unwrap();
    executor.wait(id).unwrap();
}

/// The launches of steps of few, some and many rows, of prompts, and of both.
fn steps(recorder: &Recorder, title: &str, config: &DecoderConfig, options: &Options) -> String {
    let mut executor = load(config, options).unwrap();
    recorder.take();
    let mut out = format!("== {title}\n");
    let mut record = |what: &str, step: StepDiff| {
        run(&mut executor, &step);
        out.push_str(&format!("-- {what}\n{}", recorder.take()));
        run(&mut executor, &free(&step));
        recorder.take();
    };
    for rows in [1, 9, 20, 100, 150] {
        record(&format!("{rows} sequences"), decode(rows));
    }
    let mut prompts = StepDiff::default();
    prefill(&mut prompts, 0, 140, Some(0));
    record("a prompt of 140", prompts);
    let mut mixed = decode(3);
    prefill(&mut mixed, 7, 40, Some(0));
    record("three sequences and a prompt of 40", mixed);
    let mut context = StepDiff::default();
    prefill(&mut context, 0, 33, None);
    context.prefill[0].context_logits = true;
    record("the logits of 33 rows", context);
    out
}

#[test]
fn a_step_launches_what_is_written_down() {
    let recorder = Recorder::start();
    let (c, o) = (config(), options());
    let mut out = steps(&recorder, "Hopper", &c, &o);
    out += &steps(&recorder, "timed", &c, &Options { tune: true, ..o.clone() });
    out += &steps(&recorder, "no fusion", &c, &Options { skinny_rows: 0, ..o.clone() });
    out += &steps(&recorder, "deterministic", &c, &Options { deterministic: true, ..o.clone() });
    let plain = Options { sm90_prefill: false, sm90_decode: false, ..o.clone() };
    out += &steps(&recorder, "without Hopper's own kernels", &c, &plain);
    let rich = DecoderConfig { qkv_bias: true, qk_norm: true, sliding_window: Some(64), ..c.clone() };
    out += &steps(
        &recorder,
        "biases, norms of heads, a window, heads of 96",
        &DecoderConfig { head_dim: 96, ..rich },
        &o,
    );
    recorder.set_capability(8, 0);
    out += &steps(&recorder, "Ampere", &c, &o);
    expect_file!["./launches.txt"].assert_eq(&out);
}

#[test]
fn a_graph_has_the_launches_of_its_step() {
    let recorder = Recorder::start();
    let sizes = |graphs| Options { graphs, max_slots: 24, ..options() };
    let mut plain = load(&config(), &sizes(false)).unwrap();
    recorder.take();
    run(&mut plain, &decode(20));
    let launched: Vec<String> = kernels(&recorder.take());
    drop(plain);
    let mut graphs = load(&config(), &sizes(true)).unwrap();
    recorder.take();
    run(&mut graphs, &decode(20));
    let text = recorder.take();
    let recorded = kernels(&text.lines().filter_map(|l| l.strip_prefix("| ")).collect::<Vec<_>>().join("\n"));
    // What changed is sent before, outside of the graph.
    assert_eq!(
        launched.iter().filter(|l| !l.starts_with("apply_changes") && !l.starts_with("clear")).count(),
        recorded.len()
    );
    assert!(text.lines().last().unwrap().starts_with("graph "), "{text}");
    // Of 24 rows: the next size.
    assert!(recorded[0].starts_with("embed 24x1x1"), "{recorded:?}");
    // The second time nothing is recorded, and nothing but the graph is started.
    let mut next = StepDiff { decode: decode(20).decode, ..StepDiff::default() };
    next.decode.iter_mut().for_each(|row| (row.position, row.sample) = (row.position + 1, 1));
    run(&mut graphs, &next);
    assert_eq!(recorder.take().lines().count(), 1);
}

#[test]
fn explain_counts_what_is_launched() {
    let recorder = Recorder::start();
    for change in [
        Options { ..options() },
        Options { skinny_rows: 0, ..options() },
        Options { deterministic: true, ..options() },
        Options { sm90_decode: false, ..options() },
    ] {
        let mut executor = load(&config(), &change).unwrap();
        for rows in [1, 9, 20, 100, 150] {
            let rows_of = executor.profile_decode(rows as usize, 64).unwrap();
            recorder.take();
            let asked = decode(rows);
            run(&mut executor, &asked);
            let text = recorder.take();
            let sent = |l: &&str| l.starts_with("apply_changes") || l.starts_with("clear_slots");
            let launched = text.lines().filter(|l| !sent(l)).count();
            let (step, parts) = rows_of.split_last().unwrap();
            assert_eq!(step.launches, launched, "{rows} rows, {change:?}\n{text}");
            assert_eq!(step.bytes, parts.iter().map(|part| part.bytes).sum::<usize>());
            assert_eq!(parts[0].name, "embed");
            run(&mut executor, &free(&asked));
        }
    }
}

/// The launches without what they read.
fn kernels(text: &str) -> Vec<String> {
    text.lines().map(|l| l.rsplit_once(' ').map_or(l, |(l, _)| l).to_owned()).collect()
}
