//! What the clock chooses, and what is kept of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use trireme_llm::checkpoint::DecoderConfig;
use trireme_llm::executor::{Executor, StepDiff};
use trireme_tensorrtllm::tuning::{Key, Origin, Store, Way, fastest};
use trireme_tensorrtllm::{CudaExecutor, EarlyLaunch, Options};

use crate::model::{config, decode, free, load, options, prefill};
use crate::recorder::{LAUNCH_FAILED, OUT_OF_MEMORY, Recorder};

fn timed(folder: &Path) -> Options {
    let tuning = Store { plan: None, folder: Some(folder.to_owned()) };
    Options { tune: true, graphs: true, tuning, ..options() }
}

/// The launches of a step, without what was sent before; those of its graph if it is recorded now.
fn launches(recorder: &Recorder, executor: &mut CudaExecutor, step: &StepDiff) -> Vec<String> {
    // Graphs that are there already would show nothing.
    executor.set_early(EarlyLaunch::ALL);
    recorder.take();
    let id = executor.submit(step).unwrap();
    executor.wait(id).unwrap();
    let text = recorder.take();
    let id = executor.submit(&free(step)).unwrap();
    executor.wait(id).unwrap();
    let lines = text.lines().map(|l| l.strip_prefix("| ").unwrap_or(l));
    let own = lines.filter(|l| !["apply_changes", "clear_slots", "graph "].iter().any(|p| l.starts_with(p)));
    own.map(str::to_owned).collect()
}

/// The first word of each.
fn names(launches: &[String]) -> Vec<&str> {
    launches.iter().filter_map(|l| l.split(' ').next()).collect()
}

#[test]
fn a_step_takes_what_was_faster_at_its_size() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    // Own products of 65 and more rows are slow, those of fewer are not.
    recorder.cost("stream", 10.0);
    for size in ["stream96", "stream112", "stream128"] {
        recorder.cost(size, 500.0);
    }
    recorder.cost("cublaslt", 50.0);
    let mut executor = load(&config(), &timed(dir.path())).unwrap();
    assert_eq!(executor.ways(100), (Way::Library, Way::Library));
    assert_eq!(executor.ways(64).0, Way::Stream);
    let many = launches(&recorder, &mut executor, &decode(100));
    assert!(!names(&many).iter().any(|n| n.starts_with("stream")), "{many:?}");
    assert!(names(&many).contains(&"silu_mul") && names(&many).contains(&"rms_norm"), "{many:?}");
    let some = launches(&recorder, &mut executor, &decode(60));
    assert!(!names(&some).iter().any(|n| n.starts_with("cublaslt")), "{some:?}");
    // A step of prompts and decode rows has its products of all rows at once, so it takes what is for all of them, and its
    // head those of the rows that are sampled.
    let mixed = |rows: u32, tokens: u32| {
        let mut step = decode(rows);
        prefill(&mut step, rows, tokens, Some(0));
        step
    };
    let many = launches(&recorder, &mut executor, &mixed(90, 10));
    assert!(!names(&many).iter().any(|n| n.starts_with("stream")), "{many:?}");
    assert!(names(&many).iter().any(|n| n.starts_with("cublaslt")), "{many:?}");
    let some = launches(&recorder, &mut executor, &mixed(40, 10));
    assert!(!names(&some).iter().any(|n| n.starts_with("cublaslt")), "{some:?}");
    assert!(names(&some).iter().any(|n| n.starts_with("stream")), "{some:?}");
    assert_eq!(executor.tuning().origin, Origin::Timed);
    assert!(executor.tuning().timed > 20 && executor.tuning().notes.is_empty());
}

#[test]
fn steps_of_many_rows_take_what_was_faster_at_their_size() {
    let recorder = Recorder::start();
    let mut prompts = StepDiff::default();
    (0..2).for_each(|slot| prefill(&mut prompts, slot, 140, Some(0)));
    for (own, way) in [(1.0, Way::Gated), (9.0, Way::Library)] {
        let dir = tempfile::tempdir().unwrap();
        recorder.cost("cublaslt", 4.0);
        recorder.cost("gate_up_tiles", own);
        let mut executor = load(&config(), &timed(dir.path())).unwrap();
        // Decode rows, and prompts.
        for rows in [129, 160, 280, 512] {
            assert_eq!(executor.ways(rows).0, way, "{rows} rows");
        }
        // The head has no such kernels, and few rows none either.
        assert_eq!((executor.ways(150).1, executor.ways(128).0), (Way::Library, Way::Stream));
        for step in [decode(150), prompts.clone()] {
            let took = launches(&recorder, &mut executor, &step);
            let took = names(&took);
            let count = |name: &str| took.iter().filter(|n| n.starts_with(name)).count();
            // Two layers; the head has a norm as well.
            let expected = if way == Way::Gated { (2, 0, 5) } else { (0, 2, 5) };
            let seen = (count("gate_up_tiles"), count("silu_mul"), count("rms_norm"));
            assert_eq!(seen, expected, "{took:?}");
        }
        drop(executor);
        // The next load times nothing and takes the same.
        recorder.cost("gate_up_tiles", 10.0 - own);
        let executor = load(&config(), &timed(dir.path())).unwrap();
        assert_eq!((executor.ways(280).0, executor.tuning().timed), (way, 0));
    }
}

#[test]
fn prompts_choose_beside_decode_steps_not_for_them() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.cost("cublaslt", 0.1);
    recorder.cost("gate_up_tiles", 50.0);
    let few = Options { max_slots: 8, max_step_tokens: 600, ..timed(dir.path()) };
    recorder.take();
    let executor = load(&config(), &few).unwrap();
    // What is timed for prompts is their products: nothing that would need slots.
    let text = recorder.take();
    let timed_rows = |name: &str, rows: &str| {
        text.lines().any(|l| l.trim_start_matches("| ").starts_with(name) && l.contains(rows))
    };
    assert!(timed_rows("gate_up_tiles", " early") && timed_rows("silu_mul", "x512x1/"));
    assert!(!["256", "384", "512"].iter().any(|rows| timed_rows("rope_write", &format!("x{rows}x1/"))));
    // Between the largest decode step and 129 rows nothing was timed; beyond the largest, its choice holds.
    let ways = [9, 100, 128, 129, 300, 513, 600].map(|rows| executor.ways(rows).0);
    let (own, library) = (Way::Stream, Way::Library);
    assert_eq!(ways, [own, own, own, library, library, library, library]);
    let file = fs::read_to_string(executor.tuning().written.clone().unwrap()).unwrap();
    assert!(file.contains(r#""rows":512,"products":"prompts""#), "{file}");
    drop(executor);
    // Decode steps of as many rows do not take what was timed for prompts.
    let many = Options { max_slots: 512, max_step_tokens: 600, ..timed(dir.path()) };
    let executor = load(&config(), &many).unwrap();
    assert!(executor.tuning().timed > 10, "{:?}", executor.tuning());
}

#[test]
fn the_algorithm_and_the_layout_that_were_fastest_are_taken() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.cost("cublaslt", 50.0);
    recorder.cost("cublaslt3", 20.0);
    recorder.cost("skinny", 50.0);
    recorder.cost("stream16_add", 9.0);
    recorder.cost("stream16_add_narrow", 2.0);
    recorder.cost("stream16_rope_deep", 0.5);
    let mut executor = load(&config(), &timed(dir.path())).unwrap();
    let sixteen = launches(&recorder, &mut executor, &decode(16));
    let took = names(&sixteen);
    assert!(took.contains(&"stream16_add_narrow") && took.contains(&"stream16_rope_deep"), "{took:?}");
    let many = launches(&recorder, &mut executor, &decode(150));
    assert!(names(&many).iter().filter(|n| n.starts_with("cublaslt")).all(|n| *n == "cublaslt3"), "{many:?}");
}

#[test]
fn what_was_kept_is_taken_without_timing_whatever_the_clock_would_say_now() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.cost("stream112", 500.0);
    recorder.cost("cublaslt2", 0.5);
    let mut first = load(&config(), &timed(dir.path())).unwrap();
    let file = first.tuning().written.clone().unwrap();
    let before = launches(&recorder, &mut first, &decode(100));
    drop(first);
    let again = |recorder: &Recorder, options: &Options| {
        let mut executor = load(&config(), options).unwrap();
        let report = executor.tuning().clone();
        (report, launches(recorder, &mut executor, &decode(100)))
    };
    recorder.call("recorder_reset");
    recorder.cost("cublaslt", 500.0);
    let (report, after) = again(&recorder, &timed(dir.path()));
    assert_eq!((report.origin, report.timed, report.written), (Origin::File(file.clone()), 0, None));
    assert_eq!(names(&after), names(&before));
    // The same file in a plan, and no folder.
    let tuning = Store { plan: Some(fs::read(&file).unwrap()), folder: None };
    let (report, planned) = again(&recorder, &Options { tuning, ..timed(dir.path()) });
    assert_eq!((report.origin, report.timed), (Origin::Plan, 0));
    assert_eq!(names(&planned), names(&before));
    // Damaged: a note, everything is timed again, and the file is whole afterwards.
    let mut bytes = fs::read(&file).unwrap();
    bytes[300] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let (report, other) = again(&recorder, &timed(dir.path()));
    assert!(
        report.timed > 20 && report.notes.len() == 1 && report.notes[0].contains("is damaged"),
        "{report:?}"
    );
    assert_ne!(names(&other), names(&before));
    let (report, _) = again(&recorder, &timed(dir.path()));
    assert_eq!((report.origin, report.timed), (Origin::File(file), 0));
    // Another library: its algorithms are others.
    recorder.set_cublaslt(130_200);
    let (report, _) = again(&recorder, &timed(dir.path()));
    assert!(report.origin == Origin::Timed && report.timed > 20 && report.notes.is_empty(), "{report:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn what_was_kept_of_heads_that_rotate_in_a_launch_of_their_own_is_taken() {
    let recorder = Recorder::start();
    for head_dim in [64, 80, 96, 128] {
        let dir = tempfile::tempdir().unwrap();
        let config = DecoderConfig { head_dim, ..config() };
        let first = load(&config, &timed(dir.path())).unwrap().tuning().clone();
        let file = first.written.unwrap();
        recorder.take();
        let mut executor = load(&config, &timed(dir.path())).unwrap();
        let again = executor.tuning().clone();
        assert_eq!((again.origin, again.timed, again.notes), (Origin::File(file), 0, vec![]), "{head_dim}");
        let step = launches(&recorder, &mut executor, &decode(8));
        let own = names(&step).contains(&"rope_write");
        assert_eq!(own, 128 % head_dim != 0, "{head_dim}: {step:?}");
    }
}

#[test]
fn an_algorithm_that_the_library_does_not_propose_is_timed_again() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    let first = load(&config(), &timed(dir.path())).unwrap();
    let file = first.tuning().written.clone().unwrap();
    drop(first);
    // A table from anywhere may say anything: the recorder stops the process at an algorithm that is not its own.
    let text = fs::read_to_string(&file).unwrap();
    let body =
        text.split_once('\n').unwrap().1.replace("\"algorithm\":[1,41360,", "\"algorithm\":[77,41360,");
    assert_ne!(body, text.split_once('\n').unwrap().1);
    fs::write(&file, trireme_llm::plan::seal_tuning(&body)).unwrap();
    let executor = load(&config(), &timed(dir.path())).unwrap();
    assert_eq!(executor.tuning().origin, Origin::File(file));
    assert!(executor.tuning().timed > 10, "{:?}", executor.tuning());
    drop(executor);
    assert_eq!(recorder.held(), 0);
}

/// The algorithm and sizes of each of cuBLASLt's products, with the rows that its bucket has.
fn products<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    lines
        .filter(|line| line.starts_with("cublaslt"))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let rows: usize = words[2].parse().unwrap();
            format!("{} m {} {}", words[0], rows.div_ceil(16) * 16, words[3..words.len() - 1].join(" "))
        })
        .collect()
}

#[test]
fn an_algorithm_that_was_kept_has_run_before_a_graph_is_recorded() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.cost("cublaslt3", 0.2);
    recorder.cost("stream", 90.0);
    drop(load(&config(), &timed(dir.path())).unwrap());
    recorder.take();
    let mut executor = load(&config(), &timed(dir.path())).unwrap();
    assert_eq!(executor.tuning().timed, 0);
    // Those of recordings begin with a bar.
    let run = products(recorder.take().lines());
    assert!(run.iter().all(|line| line.starts_with("cublaslt3 ")), "{run:?}");
    for rows in [30, 60, 100, 150] {
        let recorded = launches(&recorder, &mut executor, &decode(rows));
        let recorded = products(recorded.iter().map(String::as_str));
        assert!(
            recorded.len() > 4 && recorded.iter().all(|line| run.contains(line)),
            "{recorded:?} of {run:?}"
        );
    }
    drop(executor);
    // One that cannot run is timed anew among the others.
    recorder.fail("cublasLtMatmul", 0, LAUNCH_FAILED, false);
    let executor = load(&config(), &timed(dir.path())).unwrap();
    assert!(recorder.has_failed());
    assert_eq!((executor.tuning().timed, executor.tuning().notes.len()), (1, 0), "{:?}", executor.tuning());
}

#[test]
fn what_was_timed_while_the_gpu_had_other_work_is_not_kept() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.disturb("cublaslt", 5.0);
    let report = load(&config(), &timed(dir.path())).unwrap().tuning().clone();
    assert!(report.unsteady > 20 && report.timed > report.unsteady, "{report:?}");
    assert!(report.notes.len() == 1 && report.notes[0].contains("not kept"), "{report:?}");
    // The next load takes what was steady and times the rest, which is all there is then.
    recorder.call("recorder_reset");
    let again = load(&config(), &timed(dir.path())).unwrap().tuning().clone();
    assert_eq!((again.timed, again.unsteady), (report.unsteady, 0), "{again:?}");
    assert!(again.notes.is_empty() && matches!(again.origin, Origin::File(_)), "{again:?}");
    assert_eq!(load(&config(), &timed(dir.path())).unwrap().tuning().timed, 0);
}

#[test]
fn a_plan_that_lacks_choices_is_completed_once() {
    let recorder = Recorder::start();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let small = Options { max_slots: 8, ..timed(dirs[0].path()) };
    let file = load(&config(), &small).unwrap().tuning().written.clone().unwrap();
    let plan = Store { plan: Some(fs::read(file).unwrap()), folder: Some(dirs[1].path().to_owned()) };
    let options = Options { tuning: plan, ..timed(dirs[1].path()) };
    let report = load(&config(), &options).unwrap().tuning().clone();
    assert!(report.origin == Origin::Plan && report.timed > 10, "{report:?}");
    let file = report.written.unwrap();
    let report = load(&config(), &options).unwrap().tuning().clone();
    assert_eq!((report.timed, report.origin), (0, Origin::PlanAndFile(file)));
    assert_eq!(recorder.held(), 0);
}

#[test]
fn sizes_for_which_there_is_no_time_take_the_way_of_a_larger_one_until_the_next_load() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.cost("stream128", 500.0);
    // 128 rows take longer than that by themselves.
    let hurried = Options { ways_within: Duration::from_millis(5), ..timed(dir.path()) };
    let executor = load(&config(), &hurried).unwrap();
    // 128 rows were timed, 64 were not.
    assert_eq!((executor.ways(128).0, executor.ways(64).0), (Way::Library, Way::Library));
    let report = executor.tuning().clone();
    assert!(report.left > 20 && report.written.is_some(), "{report:?}");
    drop(executor);
    let executor = load(&config(), &timed(dir.path())).unwrap();
    assert_eq!((executor.ways(128).0, executor.ways(64).0), (Way::Library, Way::Stream));
    assert_eq!((executor.tuning().left, executor.tuning().timed), (0, report.left));
    drop(executor);
    // What is kept needs no time.
    let executor = load(&config(), &hurried).unwrap();
    assert_eq!((executor.ways(64).0, executor.tuning().left), (Way::Stream, 0));
    assert_eq!(executor.tuning().timed, 0);
}

#[test]
fn choices_are_none_for_steps_without_graphs_or_beside_shorter_texts() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    for options in [
        timed(dir.path()),
        Options { graphs: false, ..timed(dir.path()) },
        Options { early: EarlyLaunch::OFF, ..timed(dir.path()) },
        // Beside short texts there is less to read.
        Options { max_context: Some(64), ..timed(dir.path()) },
    ] {
        assert_eq!(load(&config(), &options).unwrap().tuning().origin, Origin::Timed);
        assert_eq!(load(&config(), &options).unwrap().tuning().timed, 0);
    }
    assert_eq!((fs::read_dir(dir.path()).unwrap().count(), recorder.held()), (4, 0));
}

#[test]
fn a_gpus_name_needs_no_context() {
    let recorder = Recorder::start();
    recorder.fail("cuDevicePrimaryCtxRetain", 0, OUT_OF_MEMORY, true);
    assert_eq!(trireme_tensorrtllm::device::name(0).unwrap(), "Recorder");
    assert!(!recorder.has_failed());
    let error = trireme_tensorrtllm::device::name(3).unwrap_err().to_string();
    assert_eq!(error, "this machine has 1 GPUs, GPU 3 is not one of them");
}

#[test]
fn a_static_profile_launches_what_the_usual_sizes_do() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.cost("stream128", 7.0);
    recorder.cost("stream32_add", 3.0);
    recorder.cost("stream32_add_deep", 1.5);
    let usual = |rows: u32| {
        let mut executor = load(&config(), &timed(dir.path())).unwrap();
        launches(&recorder, &mut executor, &decode(rows))
    };
    let fixed = |rows: u32| {
        let sizes = vec![rows as usize];
        let mut executor =
            load(&config(), &Options { max_slots: rows as usize, decode_sizes: sizes, ..timed(dir.path()) })
                .unwrap();
        launches(&recorder, &mut executor, &decode(rows))
    };
    let grids = |launches: Vec<String>| -> Vec<String> {
        launches.iter().map(|l| l.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    // Sizes of both: launch by launch the same, though each was loaded by itself and the clock may say what it likes.
    for rows in [24, 32, 104, 128] {
        recorder.cost("stream32_add_narrow", f64::from(rows));
        assert_eq!(grids(fixed(rows)), grids(usual(rows)), "{rows}");
    }
    // Between them: the same kernels for fewer rows.
    for rows in [20, 100] {
        let (a, b) = (fixed(rows), usual(rows));
        assert_eq!(names(&a), names(&b), "{rows}");
    }
}

#[test]
fn no_choice_was_slower_than_another() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    for (i, prefix) in
        ["stream8", "stream16", "stream32", "stream64", "skinny8", "skinny16", "cublaslt"].iter().enumerate()
    {
        recorder.cost(prefix, 1.0 + (i * 7 % 5) as f64);
    }
    let executor = load(&config(), &timed(dir.path())).unwrap();
    let file = executor.tuning().written.clone().unwrap();
    let body: serde_json::Value =
        serde_json::from_str(fs::read_to_string(&file).unwrap().split_once('\n').unwrap().1).unwrap();
    let entries = body["ways"].as_array().unwrap();
    assert!(entries.len() > 20);
    let mut seen = std::collections::BTreeSet::new();
    for entry in entries {
        let rows = entry["rows"].as_u64().unwrap() as usize;
        let times: Vec<(Way, f32)> = serde_json::from_value(entry["times"].clone()).unwrap();
        let best = fastest(times.iter().copied()).unwrap();
        let (layers, head) = executor.ways(rows);
        assert_eq!(best.0, if entry["products"] == "head" { head } else { layers }, "{entry}");
        assert!(times.iter().all(|(_, us)| *us >= best.1), "{entry}");
        seen.insert(best.0);
    }
    assert!(seen.len() >= 2, "only {seen:?}");
    let key: Key = serde_json::from_value(body["key"].clone()).unwrap();
    assert_eq!((key.device.as_str(), key.cublaslt, key.driver), ("Recorder", 130_100, 13000));
}

#[test]
fn where_a_row_must_not_depend_on_its_company_nothing_is_chosen() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.cost("skinny", 100.0);
    let mut executor = load(&config(), &Options { deterministic: true, ..timed(dir.path()) }).unwrap();
    assert_eq!(executor.ways(100), (Way::Few, Way::Few));
    assert_eq!((executor.tuning().timed, fs::read_dir(dir.path()).unwrap().count()), (0, 0));
    let all = launches(&recorder, &mut executor, &decode(100));
    assert!(!names(&all).iter().any(|n| n.starts_with("cublaslt") || n.starts_with("stream")), "{all:?}");
}

#[test]
fn older_gpus_choose_between_few_rows_and_the_library() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    recorder.set_capability(8, 0);
    recorder.cost("skinny16", 30.0);
    recorder.cost("cublaslt", 4.0);
    let mut executor = load(&config(), &timed(dir.path())).unwrap();
    assert_eq!(
        (executor.ways(8).0, executor.ways(9).0, executor.ways(17).0),
        (Way::Few, Way::Library, Way::Library)
    );
    let nine = launches(&recorder, &mut executor, &decode(9));
    assert!(names(&nine).iter().any(|n| n.starts_with("cublaslt")), "{nine:?}");
}

#[test]
fn kernels_are_compiled_once_for_an_architecture() {
    let recorder = Recorder::start();
    let dir = tempfile::tempdir().unwrap();
    let cached = Options { kernel_cache: Some(dir.path().join("kernels")), ..options() };
    let compiled = |options: &Options| {
        let before = recorder.compiled();
        load(&config(), options).unwrap();
        recorder.compiled() - before
    };
    let modules = trireme_tensorrtllm::kernels::MODULES.len() as i32;
    assert_eq!([compiled(&cached), compiled(&cached), compiled(&options())], [modules, 0, modules]);
    // One file is cut: that one is compiled again.
    let file = fs::read_dir(dir.path().join("kernels")).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, "cut").unwrap();
    assert_eq!([compiled(&cached), compiled(&cached)], [1, 0]);
    recorder.set_capability(8, 0);
    assert_eq!(compiled(&cached), modules);
}
