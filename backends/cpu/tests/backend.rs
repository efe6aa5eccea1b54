//! The backend as a server has it: the library that was built, through the ABI, with real models.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::ffi::c_void;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use trireme_host::abi::{DType, InstanceKind, LogLevel, MetricKind, Stage};
use trireme_host::{
    Backend, Correlation, HostServices, Input, Instance, InstanceArgs, Item, Library, LoadOptions, ModelArgs,
    OutputSet, Request, Responder, Response, ResponseSink, Status, Verdict,
};

struct Services(AtomicU32);

impl HostServices for Services {
    fn log(&self, _: LogLevel, _: &str, _: &str) {}
    fn log_level(&self) -> &AtomicU32 {
        &self.0
    }
    fn metric(
        &self,
        _: &str,
        _: &str,
        _: MetricKind,
        _: &[(&str, &str)],
    ) -> Result<&'static AtomicU64, Status> {
        Ok(Box::leak(Box::new(AtomicU64::new(0))))
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn extension(&self, _: &str) -> *const c_void {
        std::ptr::null()
    }
}

static SERVICES: Services = Services(AtomicU32::new(0));

/// Keeps the answers. Pauses after each, and cancels after as many as it was told.
#[derive(Default)]
struct Sink {
    answers: Mutex<Vec<(Response, bool)>>,
    told: Condvar,
    cancel_after: Option<usize>,
    cancelled: AtomicU32,
}

impl ResponseSink for Sink {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        let mut answers = self.answers.lock().unwrap();
        answers.push((response, is_final));
        self.told.notify_all();
        if self.cancel_after == Some(answers.len()) {
            self.cancelled.store(1, Ordering::Relaxed);
            return Verdict::Cancelled;
        }
        Verdict::Pause
    }
    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }
    fn cancelled(&self) -> &AtomicU32 {
        &self.cancelled
    }
    fn mark(&self, _: Stage, _: u64) {}
}

impl Sink {
    /// Returns when the last answer is there.
    fn wait(&self) {
        let answers = self.answers.lock().unwrap();
        drop(
            self.told.wait_while(answers, |answers| !answers.last().is_some_and(|(_, last)| *last)).unwrap(),
        );
    }

    /// The texts of all answers; exactly the last is final.
    fn texts(&self) -> Vec<String> {
        let answers = self.answers.lock().unwrap();
        let finals: Vec<bool> = answers.iter().map(|(_, f)| *f).collect();
        assert!(finals.iter().rev().skip(1).all(|f| !f) && finals.last() == Some(&true), "{finals:?}");
        let text = |data: &Bytes| String::from_utf8(data[4..].to_vec()).unwrap();
        answers
            .iter()
            .flat_map(|(r, _)| r.outputs.iter().map(|o| text(&o.data)).collect::<Vec<_>>())
            .collect()
    }

    fn error(&self) -> String {
        let answers = self.answers.lock().unwrap();
        assert_eq!(answers.len(), 1);
        answers[0].0.error.as_ref().expect("an error").to_string()
    }
}

/// Inputs by the names of the generating model; any test model takes the ones it knows.
const NAMES: [&str; 13] = [
    "text_input",
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "random_seed",
    "stop_words",
    "stream",
    "bad_words",
    "min_tokens",
    "repetition_penalty",
    "presence_penalty",
    "text",
];

fn input(name: &str, dtype: DType, elements: i64, data: Vec<u8>) -> Input {
    let index = NAMES.iter().position(|n| *n == name).unwrap() as u16;
    Input { index, dtype, shape: smallvec![elements], buffers: smallvec![Bytes::from(data)], device: None }
}

fn strings(name: &str, elements: &[&str]) -> Input {
    let framed = |s: &&str| [&(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat();
    input(name, DType::BYTES, elements.len() as i64, elements.iter().flat_map(framed).collect())
}

fn item(inputs: Vec<Input>, batch_size: u32, sink: &Arc<Sink>) -> Item {
    let request = Request {
        id: String::new(),
        inputs: SmallVec::from_vec(inputs),
        parameters: Vec::new(),
        wanted: OutputSet::all(1),
        batch_size,
        priority: 0,
        deadline_ns: 0,
        correlation: Correlation::None,
        document: None,
        trace_parent: String::new(),
        names: NAMES.iter().map(|n| Box::from(*n)).collect(),
    };
    Item { request: Box::new(request), responder: Responder::new(Arc::clone(sink) as Arc<dyn ResponseSink>) }
}

fn backend() -> Arc<Backend> {
    // Cargo puts the library beside the tests that it builds.
    let path = std::env::current_exe().unwrap().with_file_name("libtrireme_cpu.so");
    let library = Library::open(&path, "cpu", &LoadOptions::default()).unwrap();
    assert!(library.info().cpu && !library.info().gpu);
    Backend::create(library, &SERVICES, "{}").unwrap()
}

/// Loads the model of a version directory with parameters.
fn try_load(
    dir: &Path,
    decoupled: bool,
    max_batch: u32,
    parameters: &[(&str, &str)],
) -> Result<Instance, Status> {
    let parameters: serde_json::Map<String, serde_json::Value> =
        parameters.iter().map(|(k, v)| ((*k).to_owned(), serde_json::json!({ "string_value": v }))).collect();
    let config = serde_json::json!({
        "max_batch_size": max_batch,
        "model_transaction_policy": { "decoupled": decoupled },
        "parameters": parameters,
    });
    let config_json = config.to_string();
    let args =
        ModelArgs { name: "m", version: 1, model_dir: dir, version_dir: dir, config_json: &config_json };
    let model = backend().load(&args)?;
    model.create_instance(&InstanceArgs { name: "m_0", index: 0, kind: InstanceKind::CPU, device: 0 })
}

fn smollm2() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(support::cached(support::SMOLLM2), dir.path().join("model.gguf")).unwrap();
    dir
}

const QUESTION: &str = "What is the capital of France?";

fn ask(instance: &mut Instance, inputs: Vec<Input>, sink: Sink) -> Arc<Sink> {
    let sink = Arc::new(sink);
    instance.execute(&mut vec![item(inputs, 1, &sink)]).unwrap();
    sink.wait();
    sink
}

#[test]
fn text_whole_and_in_pieces() {
    let dir = smollm2();
    let mut instance = try_load(dir.path(), true, 0, &[("checkpoint", "model.gguf")]).unwrap();
    let whole = ask(&mut instance, vec![strings("text_input", &[QUESTION])], Sink::default());
    assert_eq!(whole.texts(), ["The capital of France is Paris."]);

    let stream = || vec![strings("text_input", &[QUESTION]), input("stream", DType::BOOL, 1, vec![1])];
    let pieces = ask(&mut instance, stream(), Sink::default()).texts();
    assert_eq!(pieces, ["The", " capital", " of", " France", " is", " Paris", "."]);

    let cancelled = ask(&mut instance, stream(), Sink { cancel_after: Some(2), ..Sink::default() });
    let answers = cancelled.answers.lock().unwrap();
    assert_eq!(answers.len(), 3, "two pieces and the end");
    assert!(answers[2].1 && answers[2].0.error.is_some());
}

#[test]
fn limits_sampling_and_stop_words() {
    let dir = smollm2();
    let mut instance =
        try_load(dir.path(), true, 0, &[("threads", "2"), ("kv_cache_dtype", "fp32")]).unwrap();
    let mut text = |more: Vec<Input>| {
        let inputs = std::iter::once(strings("text_input", &[QUESTION])).chain(more).collect();
        ask(&mut instance, inputs, Sink::default()).texts().concat()
    };
    let int = |name, n: i32| input(name, DType::INT32, 1, n.to_le_bytes().to_vec());
    let float = |name, x: f32| input(name, DType::FP32, 1, x.to_le_bytes().to_vec());
    let seed = |n: u64| input("random_seed", DType::UINT64, 1, n.to_le_bytes().to_vec());
    assert_eq!(text(vec![int("max_tokens", 3)]), "The capital of");
    assert_eq!(text(vec![strings("stop_words", &["nobody", " is"])]), "The capital of France");
    let without = text(vec![strings("bad_words", &["Paris", "capital of"]), int("max_tokens", 30)]);
    assert!(
        !without.is_empty() && !without.contains("Paris") && !without.contains("capital of"),
        "{without}"
    );
    let longer = text(vec![int("min_tokens", 20), int("max_tokens", 40)]);
    assert!(longer.starts_with("The capital of France is Paris.") && longer.len() > 40, "{longer}");
    let penalty = text(vec![float("repetition_penalty", 1.8), int("max_tokens", 30)]);
    assert_ne!(penalty, "The capital of France is Paris.");
    let sampled = |n| {
        vec![
            float("temperature", 1.5),
            float("top_p", 0.95),
            int("top_k", 50),
            seed(n),
            int("max_tokens", 20),
        ]
    };
    let first = text(sampled(1));
    assert_eq!(first, text(sampled(1)), "the same seed gives the same text");
    assert!((2..6).any(|n| text(sampled(n)) != first), "other seeds give other texts");
}

#[test]
fn without_a_chat_template_the_text_goes_on() {
    let dir = smollm2();
    let mut instance =
        try_load(dir.path(), false, 0, &[("chat_template", "none"), ("max_tokens", "6")]).unwrap();
    let sink = ask(&mut instance, vec![strings("text_input", &["The quick brown fox"])], Sink::default());
    assert_eq!(sink.texts(), [" with a quick brown bear."]);
}

#[test]
fn bad_requests_are_told_which_input() {
    let dir = smollm2();
    let mut instance = try_load(dir.path(), false, 0, &[]).unwrap();
    let mut error = |more: Vec<Input>| {
        let inputs = std::iter::once(strings("text_input", &["Hi"])).chain(more).collect();
        ask(&mut instance, inputs, Sink::default()).error()
    };
    for (bad, expected) in [
        (input("max_tokens", DType::INT32, 1, 0i32.to_le_bytes().to_vec()), "input 'max_tokens' is 0"),
        (input("min_tokens", DType::INT32, 1, (-1i32).to_le_bytes().to_vec()), "input 'min_tokens' is -1"),
        (
            input("repetition_penalty", DType::FP32, 1, 0f32.to_le_bytes().to_vec()),
            "input 'repetition_penalty' is 0",
        ),
        (input("temperature", DType::FP32, 1, (-1f32).to_le_bytes().to_vec()), "input 'temperature': "),
        (input("top_p", DType::FP32, 1, 2f32.to_le_bytes().to_vec()), "input 'top_p': "),
        (input("top_k", DType::FP32, 1, 2f32.to_le_bytes().to_vec()), "input 'top_k' is FP32"),
        (input("stream", DType::BOOL, 1, vec![1]), "input 'stream' is true, but the model is not decoupled"),
    ] {
        let error = error(vec![bad]);
        assert!(error.contains(expected), "{error}");
    }
    let sink = ask(&mut instance, vec![strings("text_input", &["a", "b"])], Sink::default());
    assert!(sink.error().contains("input 'text_input' must have exactly one element"));
    let long = "word ".repeat(9000);
    let sink = ask(&mut instance, vec![strings("text_input", &[&long])], Sink::default());
    assert!(sink.error().contains("input 'text_input': the prompt has"), "{}", sink.error());
}

#[test]
fn a_model_that_cannot_be_served_says_why() {
    let dir = smollm2();
    let error =
        |parameters: &[(&str, &str)]| try_load(dir.path(), false, 0, parameters).err().unwrap().to_string();
    assert!(error(&[("thread", "2")]).contains("did you mean 'threads'?"));
    assert!(error(&[("max_context", "9000")]).contains("parameter 'max_context' is 9000"));
    assert!(error(&[("batch_scheduler_policy", "first")]).contains("guaranteed_no_evict, max_utilization"));
    let few = error(&[("max_context", "8192"), ("max_tokens_in_paged_kv_cache", "64")]);
    assert!(few.contains("'max_tokens_in_paged_kv_cache' is 64, less than one context of 8192"), "{few}");
    let large = try_load(dir.path(), false, u32::MAX, &[]).err().unwrap().to_string();
    let most: u64 = large.split("largest that fits is ").nth(1).unwrap().parse().unwrap();
    assert!(large.starts_with("max_batch_size 4294967295 does not fit in memory") && most > 0, "{large}");
    assert!(try_load(dir.path(), false, u32::try_from(most / 2).unwrap(), &[]).is_ok());
    let open = error(&[("profile.0.batch.max", "4")]);
    assert!(open.contains("profile 0 has no parameter 'profile.0.tokens.min'"), "{open}");
    assert!(error(&[("checkpoint", "nothing.gguf")]).contains("nothing.gguf"));
    let bytes = std::fs::read(support::cached(support::SMOLLM2)).unwrap();
    std::fs::write(dir.path().join("cut.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    assert!(error(&[("checkpoint", "cut.gguf")]).contains("cut off"));
}

/// Keys and values are reserved, and taken when they are used; the second model's share is one of what the first leaves.
#[test]
#[cfg(target_os = "linux")]
fn two_models_that_ask_for_nearly_all_memory() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    };
    let dir = smollm2();
    let parameters = [("kv_cache_free_gpu_mem_fraction", "0.9")];
    let mut instances = [(); 2].map(|()| try_load(dir.path(), true, 0, &parameters).unwrap());
    for instance in &mut instances {
        let limit = input("max_tokens", DType::INT32, 1, 4i32.to_le_bytes().to_vec());
        ask(instance, vec![strings("text_input", &[QUESTION]), limit], Sink::default()).texts();
    }
    assert!(resident() < 1 << 30, "{} MiB are resident", resident() >> 20);
}

/// A server loads several models at a time.
#[test]
fn models_that_load_at_once_are_not_promised_the_same_memory() {
    let kib = |file: &str, name: &str| {
        let table = std::fs::read_to_string(file).unwrap();
        let line = table.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap()
    };
    let address_space = || kib("/proc/self/status", "VmSize:");
    let (free, before) = (kib("/proc/meminfo", "MemAvailable:"), address_space());
    let dir = smollm2();
    // Of the loads, and of this thread, which looks while all hold what they got.
    let (start, loaded, seen) = (Barrier::new(4), Barrier::new(5), Barrier::new(5));
    let load = || {
        start.wait();
        // The last ones may find nothing left.
        let instance = try_load(dir.path(), true, 0, &[("kv_cache_free_gpu_mem_fraction", "0.9")]);
        loaded.wait();
        seen.wait();
        instance.is_ok()
    };
    let (promised, some) = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(load));
        loaded.wait();
        let promised = address_space() - before;
        seen.wait();
        (promised, threads.map(|thread| thread.join().unwrap()).contains(&true))
    });
    assert!(some);
    assert!(promised < free + (4 << 20), "{} MiB were free, {} are promised", free >> 10, promised >> 10);
}

#[test]
fn embeddings_of_several_requests_in_one_batch() {
    let dir = support::minilm();
    let mut instance = try_load(dir.path(), false, 64, &[]).unwrap();
    let texts =
        ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."];
    let sinks: Vec<Arc<Sink>> = (0..3).map(|_| Arc::new(Sink::default())).collect();
    let mut batch = vec![
        item(vec![strings("text", &texts[..1])], 1, &sinks[0]),
        item(vec![strings("text", &["word ".repeat(600).as_str()])], 1, &sinks[1]),
        item(vec![strings("text", &texts[1..])], 2, &sinks[2]),
    ];
    instance.execute(&mut batch).unwrap();
    assert!(sinks[1].error().contains("input 'text', element 0: has 602 tokens"));
    let vectors = |sink: &Sink| {
        let answers = sink.answers.lock().unwrap();
        let output = &answers[0].0.outputs[0];
        let values: Vec<f32> =
            output.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (output.name.clone(), output.shape.to_vec(), values)
    };
    let (name, shape, first) = vectors(&sinks[0]);
    assert_eq!((name.as_str(), &shape[..]), ("embedding", &[1i64, 384][..]));
    let (_, shape, others) = vectors(&sinks[2]);
    assert_eq!(shape, [2, 384]);
    for (row, golden) in others.chunks_exact(384).zip([0.7553, -0.1050]) {
        let cosine: f32 = first.iter().zip(row).map(|(a, b)| a * b).sum();
        assert!((cosine - golden).abs() < 1e-4, "{cosine} for {golden}");
    }
}

#[test]
fn an_open_configuration_is_completed() {
    let complete = |dir: &Path| {
        let args = ModelArgs { name: "m", version: 1, model_dir: dir, version_dir: dir, config_json: "{}" };
        let patch = backend().complete_config(&args).unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&patch).unwrap()
    };
    let dir = smollm2();
    let patch = complete(dir.path());
    assert_eq!(patch["model_transaction_policy"]["decoupled"], true);
    assert_eq!(patch["input"].as_array().unwrap().len(), 13);
    let dir = support::minilm();
    let patch = complete(dir.path());
    assert_eq!(patch["output"][0]["dims"], serde_json::json!([384]));
    assert_eq!(patch["max_batch_size"], 64);
}

/// Many requests on one instance at a time: each gets the answer that it gets alone, and the instance is free at once.
#[test]
fn requests_run_together() {
    let dir = smollm2();
    let parameters = [("batch_scheduler_policy", "max_utilization"), ("max_tokens_in_paged_kv_cache", "512")];
    let mut instance = try_load(dir.path(), true, 0, &parameters).unwrap();
    let questions = [QUESTION, "Name a colour.", "What is 2 + 2?", "Who wrote Hamlet?"];
    let asked = |n: usize| {
        let n = n % questions.len();
        let limit = input("max_tokens", DType::INT32, 1, 24i32.to_le_bytes().to_vec());
        vec![strings("text_input", &questions[n..=n]), limit]
    };
    let alone: Vec<_> = (0..4).map(|n| ask(&mut instance, asked(n), Sink::default()).texts()).collect();
    let sinks: Vec<Arc<Sink>> = (0..24).map(|_| Arc::new(Sink::default())).collect();
    for (n, sink) in sinks.iter().enumerate() {
        instance.execute(&mut vec![item(asked(n), 1, sink)]).unwrap();
    }
    instance.drain();
    for (n, sink) in sinks.iter().enumerate() {
        assert_eq!(sink.texts(), alone[n % 4], "drained, so the answer is there");
    }
}
