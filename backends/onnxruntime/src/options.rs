//! What a model's configuration says about its sessions, under Triton's names.

use std::thread::available_parallelism;

use ort::environment::Environment;
use ort::ep;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use serde_json::Value;
use trireme_sdk::{Config, Error, Result};

/// How sessions of a model are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    intra_op_threads: usize,
    inter_op_threads: usize,
    /// Whether one of these was written.
    sizes_threads: bool,
    parallel: bool,
    memory_pattern: bool,
    memory_arena: bool,
    /// The memory that the arena gives back after a run, as ONNX Runtime writes it: "cpu:0".
    shrink_arena: Option<String>,
    level: Level,
    /// Whether sessions take their memory from a [`Pool`](crate::memory::Pool).
    pooled: bool,
    /// Parameters that ONNX Runtime itself reads: `session.*`.
    entries: Vec<(String, String)>,
    /// What is to be said of parameters that have no meaning here.
    idle: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Off,
    Basic,
    Extended,
    All,
}

/// Parameters of Triton's backend that are known and change nothing here: of GPUs, and of sessions that instances share.
const IDLE: [&str; 9] = [
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "do_copy_in_default_stream",
    "gpu_mem_limit",
    "enable_cuda_graph",
    "use_tf32",
    "enable_skip_layer_norm_strict_mode",
    "share_session_between_instances",
];
/// The parameter that is a setting of each run.
const SHRINK: &str = "memory.enable_memory_arena_shrinkage";

/// The parameters that are read.
const READ: [&str; 6] = [
    "intra_op_thread_count",
    "inter_op_thread_count",
    "execution_mode",
    "enable_mem_pattern",
    "enable_mem_arena",
    SHRINK,
];
/// Threads that wait for the next operator look for it without sleeping, by default for so many microseconds: a client that
/// sends its next request when it has the answer then finds them awake, and no longer than that do they take cores which the
/// server's other threads need.
const SPIN_DURATION: (&str, &str) = ("session.intra_op.spin_duration_us", "1000");
/// The first version of ONNX Runtime that reads it.
const SPIN_DURATION_SINCE: (u32, u32) = (1, 26);
/// In the place of it for older ones, which would go on for as long as they like: they sleep when the run has ended.
const STOP_SPINNING: (&str, &str) = ("session.force_spinning_stop", "1");
/// Memory from the allocator that `memory::register` has registered.
const ENV_ALLOCATORS: &str = "session.use_env_allocators";

/// More threads than a machine has processors; ONNX Runtime would start any number.
pub(crate) const MOST_THREADS: u32 = 1024;

impl Options {
    pub(crate) fn read(config: &Config) -> Result<Self> {
        let count = |name: &str| match config.parameter::<u64>(name)?.unwrap_or(0) {
            count if count <= u64::from(MOST_THREADS) => Ok(count as usize),
            more => {
                Err(Error::invalid(format!("parameter '{name}' is {more}, at most {MOST_THREADS} works")))
            }
        };
        let all = available_parallelism().map_or(1, usize::from);
        let written = |name: &str| config.parameters().any(|(one, _)| one == name);
        let given = config.parameters().filter(|(name, _)| name.starts_with("session."));
        let entries = given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let parallel = match config.parameter::<u8>("execution_mode")?.unwrap_or(0) {
            mode @ (0 | 1) => mode == 1,
            other => {
                return Err(Error::invalid(format!(
                    "parameter 'execution_mode' is {other}, it must be 0 or 1"
                )));
            }
        };
        let memory_arena = flag(config, "enable_mem_arena", true)?;
        let shrink_arena = shrink(config)?;
        Ok(Self {
            // Operators that run at a time do so on threads of ONNX Runtime, of which no pool knows.
            pooled: memory_arena && shrink_arena.is_none() && !parallel && !written(ENV_ALLOCATORS),
            intra_op_threads: match count("intra_op_thread_count")? {
                // As many as this process may use, which need not be as many as the machine has.
                0 => all,
                given => given,
            },
            inter_op_threads: match count("inter_op_thread_count")? {
                0 => all,
                given => given,
            },
            sizes_threads: config.parameters().any(|(name, _)| name.ends_with("_op_thread_count")),
            parallel,
            memory_pattern: flag(config, "enable_mem_pattern", true)?,
            memory_arena,
            shrink_arena,
            level: level(config.json())?,
            entries,
            idle: config
                .parameters()
                .filter(|(name, _)| !READ.contains(name) && !name.starts_with("session."))
                .map(|(name, _)| match IDLE.contains(&name) {
                    true => format!("parameter '{name}' has no effect"),
                    false => format!("parameter '{name}' is unknown and has no effect"),
                })
                .collect(),
        })
    }

    pub(crate) fn warnings(&self) -> impl Iterator<Item = &String> {
        self.idle.iter()
    }

    /// Whether the model asks for a number of threads.
    pub(crate) fn sizes_threads(&self) -> bool {
        self.sizes_threads
    }

    /// Whether sessions can take their memory from a pool.
    pub(crate) fn pooled(&self) -> bool {
        self.pooled
    }

    /// A session of a library of this version, to be given its model; `pooled`: with memory from a pool.
    pub(crate) fn session(
        &self,
        environment: &Environment,
        library: Option<(u32, u32)>,
        pooled: bool,
    ) -> ort::Result<SessionBuilder> {
        let level = match self.level {
            Level::Off => GraphOptimizationLevel::Disable,
            Level::Basic => GraphOptimizationLevel::Level1,
            Level::Extended => GraphOptimizationLevel::Level2,
            Level::All => GraphOptimizationLevel::All,
        };
        let arena = ep::CPU::default().with_arena_allocator(self.memory_arena).build();
        let mut builder = Session::builder(environment)?
            .with_execution_providers([arena])?
            .with_intra_threads(self.intra_op_threads)?
            .with_memory_pattern(self.memory_pattern)?
            .with_optimization_level(level)?;
        if self.parallel {
            builder = builder.with_parallel_execution(true)?.with_inter_threads(self.inter_op_threads)?;
        }
        if pooled {
            builder = builder.with_config_entry(ENV_ALLOCATORS, "1")?;
        }
        if !self.entries.iter().any(|(name, _)| [STOP_SPINNING.0, SPIN_DURATION.0].contains(&name.as_str())) {
            let (name, value) = spin(library);
            builder = builder.with_config_entry(name, value)?;
        }
        for (name, value) in &self.entries {
            builder = builder.with_config_entry(name, value)?;
        }
        Ok(builder)
    }

    /// A session that is only looked at: as it is written, without threads.
    pub(crate) fn plain_session(environment: &Environment) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(environment)?;
        Ok(builder.with_intra_threads(1)?.with_optimization_level(GraphOptimizationLevel::Disable)?)
    }

    /// What each run is told.
    pub(crate) fn run(&self) -> ort::Result<RunOptions<NoSelectedOutputs>> {
        let mut run = RunOptions::new()?;
        // It would log what a request brings as an error of its own; `failure` says it.
        run.set_log_level(LogLevel::Fatal)?;
        if let Some(memory) = &self.shrink_arena {
            run.set(SHRINK, memory)?;
        }
        Ok(run)
    }
}

/// How long threads look for work where the model does not say it.
fn spin(library: Option<(u32, u32)>) -> (&'static str, &'static str) {
    match library {
        Some(version) if version >= SPIN_DURATION_SINCE => SPIN_DURATION,
        _ => STOP_SPINNING,
    }
}

fn flag(config: &Config, name: &str, default: bool) -> Result<bool> {
    match config.parameter::<String>(name)?.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => Ok(default),
        Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(other) => Err(Error::invalid(format!("parameter '{name}' is '{other}', it must be 0 or 1"))),
    }
}

fn shrink(config: &Config) -> Result<Option<String>> {
    match config.parameter::<String>(SHRINK)? {
        Some(other) if other != "cpu:0" => Err(Error::invalid(format!(
            "parameter '{SHRINK}' is '{other}', there is only the memory 'cpu:0'"
        ))),
        given => Ok(given),
    }
}

/// `optimization { graph { level } }`: -1 basic, 1 extended, 2 none of them, 0 or nothing all of them.
fn level(config: &Value) -> Result<Level> {
    let optimization = &config["optimization"];
    let accelerators = &optimization["execution_accelerators"];
    for field in ["gpu_execution_accelerator", "cpu_execution_accelerator"] {
        if let Some(first) = accelerators[field].as_array().and_then(|list| list.first()) {
            return Err(Error::unsupported(format!(
                "optimization.execution_accelerators.{field} names '{}': only the CPU provider of ONNX Runtime is used",
                first["name"].as_str().unwrap_or_default()
            )));
        }
    }
    match optimization["graph"]["level"].as_i64().unwrap_or(0) {
        -1 => Ok(Level::Basic),
        0 => Ok(Level::All),
        1 => Ok(Level::Extended),
        2 => Ok(Level::Off),
        other => Err(Error::invalid(format!(
            "optimization.graph.level is {other}: there are -1 (basic), 1 (extended), 2 (none) and 0 (all)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_library_without_a_bound_sleep_when_a_run_has_ended() {
        for (library, name) in [
            (None, "session.force_spinning_stop"),
            (Some((1, 25)), "session.force_spinning_stop"),
            (Some((1, 26)), "session.intra_op.spin_duration_us"),
            (Some((2, 0)), "session.intra_op.spin_duration_us"),
        ] {
            assert_eq!(spin(library).0, name, "{library:?}");
        }
    }
}
