//! What comes of calls that fail, while a model loads and in its steps, and of sizes that no GPU can run.

use trireme_llm::checkpoint::DecoderConfig;
use trireme_llm::executor::{DecodeRow, Executor, ExecutorError, StepDiff};
use trireme_tensorrtllm::{CudaError, Options};

use crate::model::{config, decode, free, load, options, prefill};
use crate::recorder::{LAUNCH_FAILED, OUT_OF_MEMORY, Recorder};

/// Graphs, few of them.
fn few() -> Options {
    Options { max_slots: 4, max_step_tokens: 64, max_context: Some(160), graphs: true, ..options() }
}

#[test]
fn nothing_is_taken_beyond_the_plan_and_nothing_after_the_load() {
    let recorder = Recorder::start();
    let wide = DecoderConfig { num_layers: 3, qkv_bias: true, tie_word_embeddings: false, ..config() };
    for (c, o) in [
        (config(), Options { graphs: true, tune: true, ..options() }),
        (config(), Options { kv_fraction: 0.5, deterministic: true, ..options() }),
        (wide, Options { max_slots: 7, max_step_tokens: 4096, ..options() }),
    ] {
        let mut executor = load(&c, &o).unwrap();
        let planned = executor.memory_plan().taken();
        let most = recorder.most_taken();
        assert!(most <= planned, "{most} of {planned} planned: {}", executor.memory_plan());
        // A plan that reserves far too much would never be exceeded.
        assert!(planned - most < 32 << 20, "{most} of {planned} planned: {}", executor.memory_plan());
        for step in [decode(5), StepDiff::default()] {
            let id = executor.submit(&step).unwrap();
            executor.wait(id).unwrap();
        }
        assert_eq!(recorder.most_taken(), most);
        drop(executor);
        assert_eq!(recorder.held(), 0);
        recorder.call("recorder_reset");
    }
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_the_numbers() {
    let recorder = Recorder::start();
    recorder.set_memory(600 << 20);
    let error = load(&config(), &options()).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, CudaError::Memory(_)), "{text}");
    assert!(text.contains("not enough memory on the GPU: nothing is left for keys and values"), "{text}");
    assert!(text.contains("MB free"), "{text}");
    assert_eq!(recorder.held(), 0);
}

#[test]
fn memory_that_others_take_while_a_model_loads_is_an_error_and_nothing_stays() {
    let recorder = Recorder::start();
    for call in ["cuMemAlloc_v2", "cuMemHostAlloc"] {
        let mut failures = 0;
        for after in 0.. {
            recorder.fail(call, after, OUT_OF_MEMORY, false);
            match load(&config(), &few()) {
                Ok(_) => break,
                Err(error) => {
                    assert!(matches!(error, CudaError::Memory(_)), "{call} {after}: {error}");
                    assert_eq!(recorder.held(), 0, "{call} {after}");
                    failures += 1;
                }
            }
        }
        assert!(failures >= 5, "{call} is called {failures} times");
    }
}

#[test]
fn a_gpu_that_is_lost_while_a_model_loads_is_said_to_be_and_nothing_stays() {
    let recorder = Recorder::start();
    let mut failures = 0;
    for after in (0..).step_by(3) {
        recorder.fail("*", after, LAUNCH_FAILED, true);
        let outcome = load(&config(), &few());
        if !recorder.has_failed() {
            break;
        }
        match outcome {
            Err(error) => {
                let from_cublas = error.to_string().contains("cublas");
                assert!(from_cublas || matches!(error, CudaError::Lost { .. }), "{after}: {error}");
            }
            Ok(_) => panic!("{after}: it has loaded"),
        }
        assert_eq!(recorder.held(), 0, "{after}");
        failures += 1;
    }
    assert!(failures > 100, "{failures}");
}

#[test]
fn without_memory_for_a_graph_steps_are_launched_one_by_one() {
    let recorder = Recorder::start();
    // While the ways of a step are timed it is no error either.
    recorder.fail("cuGraphInstantiateWithFlags", 3, OUT_OF_MEMORY, false);
    let timed = load(&config(), &Options { tune: true, ..few() }).unwrap();
    assert!(recorder.has_failed() && timed.tuning().timed > 10);
    drop(timed);
    recorder.fail("cuGraphInstantiateWithFlags", 0, OUT_OF_MEMORY, false);
    let mut executor = load(&config(), &few()).unwrap();
    assert!(recorder.has_failed());
    recorder.take();
    for rows in [4, 3] {
        let step = decode(rows);
        let id = executor.submit(&step).unwrap();
        assert_eq!(executor.wait(id).unwrap().sampled.len(), rows as usize);
        let text = recorder.take();
        assert!(text.contains(&format!("\nembed {rows}x1x1")) && !text.contains("graph "), "{text}");
        let id = executor.submit(&free(&step)).unwrap();
        executor.wait(id).unwrap();
    }
}

#[test]
fn a_graph_that_fails_later_leaves_those_that_are_there() {
    let recorder = Recorder::start();
    let mut executor = load(&config(), &few()).unwrap();
    recorder.take();
    // 1, 2 and 4 are recorded at load, 3 is not.
    recorder.fail("cuGraphUpload", 0, OUT_OF_MEMORY, false);
    let mut graphs = Vec::new();
    for rows in [3, 4, 3] {
        let step = decode(rows);
        let id = executor.submit(&step).unwrap();
        executor.wait(id).unwrap();
        graphs.push(recorder.take().lines().last().unwrap().starts_with("graph "));
        let id = executor.submit(&free(&step)).unwrap();
        executor.wait(id).unwrap();
        recorder.take();
    }
    assert!(recorder.has_failed());
    assert_eq!(graphs, [false, true, false]);
}

#[test]
fn a_gpu_that_is_lost_in_a_step_is_a_lost_device() {
    let recorder = Recorder::start();
    let prompt = || {
        let mut step = StepDiff::default();
        prefill(&mut step, 0, 60, Some(0));
        step
    };
    for (call, step, graphs) in [
        ("cuGraphLaunch", decode(2), true),
        ("cuLaunchKernelEx", decode(2), false),
        ("cuMemcpyHtoDAsync_v2", decode(2), true),
        // It has no word for a lost device.
        ("cublasLtMatmul", prompt(), false),
        ("cuEventRecord", prompt(), false),
    ] {
        let plain = Options { sm90_decode: false, ..few() };
        let mut executor = load(&config(), &Options { graphs, ..plain }).unwrap();
        recorder.fail(call, 0, LAUNCH_FAILED, true);
        let outcome = executor.submit(&step);
        assert!(matches!(outcome, Err(ExecutorError::DeviceLost(_))), "{call}: {outcome:?}");
        drop(executor);
        assert_eq!(recorder.held(), 0, "{call}");
        recorder.call("recorder_reset");
    }
    let mut executor = load(&config(), &few()).unwrap();
    let id = executor.submit(&decode(2)).unwrap();
    recorder.fail("cuEventQuery", 0, LAUNCH_FAILED, true);
    assert!(matches!(executor.poll(id), Err(ExecutorError::DeviceLost(_))));
    assert!(matches!(executor.wait(id), Err(ExecutorError::DeviceLost(_))));
}

#[test]
fn a_product_that_fails_alone_is_fatal_but_no_lost_device() {
    let recorder = Recorder::start();
    let mut executor = load(&config(), &few()).unwrap();
    let mut step = StepDiff::default();
    prefill(&mut step, 0, 60, Some(0));
    // One algorithm that cannot is no error: the library's best is taken in its place.
    let plain = Options { sm90_decode: false, ..few() };
    let mut other = load(&config(), &plain).unwrap();
    recorder.fail("cublasLtMatmul", 0, LAUNCH_FAILED, false);
    assert!(other.submit(&step).is_ok());
    assert!(recorder.has_failed());
    recorder.fail("cublasLtMatmulAlgoGetHeuristic", 0, LAUNCH_FAILED, false);
    let mut third = load(&config(), &plain).unwrap();
    let outcome = third.submit(&step);
    assert!(recorder.has_failed());
    assert!(matches!(&outcome, Err(ExecutorError::Fatal(text)) if text.contains("cublasLt")), "{outcome:?}");
    assert!(executor.submit(&decode(1)).is_ok());
}

#[test]
fn what_the_machine_lacks_is_one_sentence() {
    let recorder = Recorder::start();
    let said = |change: &dyn Fn()| {
        change();
        let text = load(&config(), &options()).err().unwrap().to_string();
        recorder.call("recorder_reset");
        assert!(!text.contains('\n') && recorder.held() == 0, "{text}");
        text
    };
    let text = said(&|| recorder.set_driver(12040));
    assert_eq!(
        text,
        "the NVIDIA driver of this machine is for CUDA 12.4, CUDA 13.0 is needed: install driver 580 or later"
    );
    let text = said(&|| recorder.set_devices(0));
    assert!(
        text.starts_with("there is an NVIDIA driver on this machine, but no GPU that it can use"),
        "{text}"
    );
    let text = said(&|| recorder.set_capability(7, 5));
    assert_eq!(text, "Recorder has compute capability 7.5, the kernels need 8.0 or later");
    let error = load(&config(), &Options { device: 3, ..options() }).err().unwrap();
    assert_eq!(error.to_string(), "this machine has 1 GPUs, GPU 3 is not one of them");
    // Of Ada, whose blocks have 99 kB.
    recorder.set_capability(8, 9);
    let large = DecoderConfig { head_dim: 256, ..config() };
    let text = load(&large, &options()).err().unwrap().to_string();
    assert!(text.contains("heads of 256 need 128 kB of shared memory a block, Recorder has 99"), "{text}");
    load(&config(), &options()).unwrap();
}

#[test]
fn sizes_that_no_launch_can_have_are_refused_at_load() {
    let recorder = Recorder::start();
    for (o, said) in [
        (
            Options { max_slots: 2_000_000_000, max_step_tokens: 2_000_000_000, ..options() },
            "2000000000 sequences at a time",
        ),
        (Options { max_step_tokens: 100_000, ..options() }, "100000 rows of a step"),
        (Options { max_slots: 0, ..options() }, "0 sequences at a time"),
    ] {
        let error = load(&config(), &o).err().unwrap();
        assert!(matches!(error, CudaError::Unsupported(_)) && error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("65535"), "{error}");
    }
    assert_eq!(recorder.held(), 0);
}

#[test]
fn a_step_that_breaks_the_rules_runs_nothing() {
    let recorder = Recorder::start();
    let mut executor = load(&config(), &few()).unwrap();
    recorder.take();
    let stray = DecodeRow { slot: trireme_llm::executor::Slot(9), position: 0, sample: 0 };
    let outcome = executor.submit(&StepDiff { decode: vec![stray], ..StepDiff::default() });
    assert!(matches!(outcome, Err(ExecutorError::Rules(_))), "{outcome:?}");
    assert_eq!(recorder.take(), "");
}
