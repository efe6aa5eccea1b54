//! The checks as tests of a backend's crate.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use trireme_conformance::{Check, Declared, Outcome, Source, Subject};
use trireme_host::Library;
use trireme_host::abi::Probe;

/// Makes one test of each check, for the backend that is linked into the test.
///
/// `config` is the model's configuration as JSON with the field names of `config.pbtxt`; `declared` is what would be in
/// `conformance.json`, and `directory` the model's directory, if it reads files. Both may be left out.
///
/// ```ignore
/// mod conformance {
///     trireme_testing::suite! {
///         probe: my_backend::trireme_backend_probe,
///         config: r#"{ "max_batch_size": 8, "input": [...], "output": [...] }"#,
///     }
/// }
/// ```
///
/// A check that is excluded passes and prints why.
#[macro_export]
macro_rules! suite {
    (probe: $probe:expr, config: $config:expr $(, declared: $declared:expr)? $(, directory: $directory:expr)? $(,)?) => {
        $crate::suite! {
            @ ($probe, $config, [$($declared)?], [$($directory)?])
            probe_and_layout life_cycle_order shapes dtypes bytes split_inputs batching ragged decoupled_counts
            cancellation_latency deadlines error_mapping panic_containment two_instances leaks thread_rules reloads
        }
    };
    (@ ($probe:expr, $config:expr, [$($declared:expr)?], [$($directory:expr)?]) $($check:ident)*) => {
        /// No check is left out.
        const _: () = assert!($crate::CHECKS.len() == [$(stringify!($check)),*].len());
        const CONFIG: &str = $config;
        const DECLARED: &[&str] = &["{}" $(, $declared)?];
        const DIRECTORY: &[&str] = &["." $(, $directory)?];
        fn run_as_test(check: &str) {
            let last = |texts: &[&'static str]| texts[texts.len() - 1];
            $crate::run_as_test(check, &$probe, CONFIG, last(DECLARED), last(DIRECTORY));
        }
        $(
            #[test]
            fn $check() {
                run_as_test(stringify!($check));
            }
        )*
    };
}

/// The backend that is linked into this program, the same library each time: a backend is created once in a process.
///
/// # Panics
/// It is none that this version can load.
pub fn linked(probe: &'static Probe) -> Arc<Library> {
    static LINKED: LazyLock<Mutex<HashMap<usize, Arc<Library>>>> = LazyLock::new(Mutex::default);
    let mut linked = LINKED.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        // SAFETY: probes are made by `export_backend!`, from the functions of the backend.
        unsafe { Library::from_static(probe) }.unwrap_or_else(|error| panic!("{error}"))
    };
    Arc::clone(linked.entry(std::ptr::from_ref(probe).addr()).or_insert_with(make))
}

/// One test of [`suite!`].
#[doc(hidden)]
#[expect(clippy::print_stdout, reason = "the test runner shows it")]
pub fn run_as_test(check: &str, probe: &'static Probe, config: &str, declared: &str, directory: &str) {
    let Some(check) = Check::named(check) else { panic!("there is no check '{check}'") };
    let declared = Declared::parse(declared).unwrap_or_else(|what| panic!("declared: {what}"));
    let subject = Subject::with(Source::Loaded(linked(probe)), Some(Path::new(directory)), declared);
    let mut subject = subject.unwrap_or_else(|problem| panic!("{problem}"));
    subject.set_config(config).unwrap_or_else(|problem| panic!("{problem}"));
    match check.run(&subject) {
        Outcome::Pass(note) => println!("{}: {note}", check.name),
        Outcome::Excluded(reason) => println!("{}: excluded, {reason}", check.name),
        Outcome::Fail(reason) => panic!("{} ({}): {reason}", check.name, check.says),
    }
}
