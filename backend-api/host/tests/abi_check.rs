//! `TRIREME_ABI_CHECK=1`: each rule that a backend breaks is named, the host goes on, and a backend that keeps them all
//! is not accused. The layer is on in the whole process, so these tests have one of their own.
#![allow(clippy::unwrap_used)]
// Each test program uses a part of it.
#[allow(dead_code, unused_imports)]
#[path = "libraries/support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use trireme_host::abi::{DType, InstanceKind, Stage};
use trireme_host::check::{self, Rule};
use trireme_host::{
    Backend, Instance, InstanceArgs, Item, Library, LoadOptions, ModelArgs, Responder, Response,
    ResponseSink, Verdict,
};

use support::{SERVICES, c_library, input, request, scratch};

/// A client that keeps a sender waiting until it is marked, if it is told to, and that reads nothing.
#[derive(Default)]
struct Client {
    answers: Mutex<Vec<Response>>,
    holds: bool,
    marked: Mutex<bool>,
    changed: Condvar,
    pauses: bool,
    cancelled: AtomicU32,
}

impl ResponseSink for Client {
    fn send(&self, response: Response, _: bool) -> Verdict {
        self.answers.lock().unwrap().push(response);
        if self.holds {
            let mut marked = self.marked.lock().unwrap();
            *marked = false;
            let wait = self.changed.wait_timeout_while(marked, Duration::from_secs(10), |marked| !*marked);
            assert!(!wait.unwrap().1.timed_out(), "nobody called mark meanwhile");
        }
        if self.pauses { Verdict::Pause } else { Verdict::Continue }
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.cancelled
    }

    fn mark(&self, _: Stage, _: u64) {
        *self.marked.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

fn backend() -> Arc<Backend> {
    assert!(check::turn_on(), "nobody has decided before");
    let path = scratch("check").join("libtrireme_offender.so");
    static BUILT: Mutex<Option<Arc<Backend>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap();
    let make = || {
        c_library("c_backend/offender.c", &path, &[]);
        let library = Library::open(&path, "offender", &LoadOptions::default()).unwrap();
        Backend::create(library, &SERVICES, "{}").unwrap()
    };
    Arc::clone(built.get_or_insert_with(make))
}

fn instance(backend: &Arc<Backend>) -> Instance {
    let here = Path::new(".");
    let args = ModelArgs { name: "m", version: 1, model_dir: here, version_dir: here, config_json: "{}" };
    let model = backend.load(&args).unwrap();
    let args = InstanceArgs { name: "m_0", index: 0, kind: InstanceKind::CPU, device: 0 };
    model.create_instance(&args).unwrap()
}

fn ask(instance: &mut Instance, id: &str) -> Arc<Client> {
    let (holds, pauses) = (id == "concurrent-call", id == "sent-while-paused");
    let client = Arc::new(Client { holds, pauses, ..Client::default() });
    let x = input(0, DType::FP32, &[1], &[&1f32.to_le_bytes()]);
    let request = Box::new(request(id, &["X"], vec![x]));
    let responder = Responder::new(Arc::clone(&client) as Arc<dyn ResponseSink>);
    instance.execute(&mut vec![Item { request, responder }]).unwrap();
    client
}

/// Tests of this file share the list of violations.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn each_rule_is_named_and_the_host_goes_on() {
    let _turn = TURN.lock().unwrap_or_else(|error| error.into_inner());
    let mut instance = instance(&backend());
    check::take_violations();
    let cases = [
        "response-after-final",
        "output-size",
        "outside-buffer",
        "outside-buffer: before its start",
        "outside-buffer: a shifted start",
        "write-past-buffer",
        "write-past-buffer: the host's own call",
        "use-after-release",
        "use-after-release: responder",
        "use-after-release: a buffer sent twice",
        "released-twice",
        "released-twice: responder",
        "released-twice: buffer",
        "released-twice: buffer that was sent",
        "unknown-handle",
        "unknown-handle: null",
        "unknown-handle: an address",
        "concurrent-call",
        "sent-while-paused",
        "null-result",
        "text-not-utf8",
    ];
    for case in cases {
        let client = ask(&mut instance, case);
        let violations = check::take_violations();
        let rule = case.split(':').next().unwrap();
        let named = violations.iter().filter(|violation| violation.rule.name() == rule).count();
        assert!(named >= 1, "{case}: {violations:?}");
        let others = violations.iter().find(|violation| violation.rule.name() != rule);
        assert!(others.is_none(), "{case}: {others:?}");
        assert!(violations.iter().all(|violation| violation.backend == "offender"), "{violations:?}");
        assert!(!client.answers.lock().unwrap().is_empty(), "{case}: no answer");
        // The next request is as good as ever, and nobody is accused.
        let client = ask(&mut instance, "good");
        assert!(client.answers.lock().unwrap()[0].error.is_none());
        assert_eq!(check::take_violations(), [], "after {case}");
    }
    let seen = cases.map(|case| case.split(':').next().unwrap());
    let elsewhere = [Rule::DrainLeftRequests, Rule::HeldAfterDestroy, Rule::WrittenOnError];
    for rule in Rule::ALL.iter().filter(|rule| !elsewhere.contains(rule)) {
        assert!(seen.contains(&rule.name()), "no case for {}", rule.name());
    }
    // And in the log, with what the rule says.
    let lines = SERVICES.lines.lock().unwrap();
    let line = lines.iter().find(|line| line.contains("rule released-twice")).unwrap();
    assert!(
        line.starts_with("backend 'offender' broke the rule released-twice (a handle or buffer is"),
        "{line}"
    );
}

#[test]
fn what_is_held_at_the_end_is_counted() {
    let _turn = TURN.lock().unwrap_or_else(|error| error.into_inner());
    let mut instance = instance(&backend());
    check::take_violations();
    ask(&mut instance, "keep");
    assert_eq!(check::take_violations(), []);
    instance.drain();
    drop(instance);
    let rules: Vec<(Rule, bool)> = check::take_violations()
        .into_iter()
        .map(|violation| (violation.rule, violation.what.contains("with 2 requests and responders held")))
        .collect();
    assert_eq!(rules, [(Rule::DrainLeftRequests, true), (Rule::HeldAfterDestroy, true)]);
}

#[test]
fn a_failed_call_that_gives_a_handle_is_named() {
    let _turn = TURN.lock().unwrap_or_else(|error| error.into_inner());
    let backend = backend();
    check::take_violations();
    let here = Path::new(".");
    let config_json = "written-on-error";
    let args = ModelArgs { name: "m", version: 1, model_dir: here, version_dir: here, config_json };
    assert!(backend.load(&args).is_err());
    let violations = check::take_violations();
    let [violation] = violations.as_slice() else { panic!("{violations:?}") };
    assert_eq!((violation.rule, violation.what.contains("BackendVtable.load")), (Rule::WrittenOnError, true));
}
