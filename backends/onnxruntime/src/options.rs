//! What a model's configuration says about its sessions, under Triton's names.

use std::thread::available_parallelism;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use serde_json::Value;
use trireme_sdk::{Config, Error, Result};

/// How sessions of a model are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    intra_op_threads: usize,
    inter_op_threads: usize,
    parallel: bool,
    memory_pattern: bool,
    level: Level,
    /// Parameters that have no meaning here.
    idle: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Basic,
    Extended,
    All,
}

/// Parameters of Triton's backend that are known and change nothing here.
const IDLE: [&str; 5] =
    ["enable_mem_arena", "memory.enable_memory_arena_shrinkage", "arena_extend_strategy", "cudnn_conv_algo_search", "do_copy_in_default_stream"];

impl Options {
    pub(crate) fn read(config: &Config) -> Result<Self> {
        let count = |name: &str| -> Result<usize> {
            config.parameter::<usize>(name).map(|count| count.unwrap_or(0))
        };
        let flag = |name: &str, default: bool| match config.parameter::<u8>(name)? {
            None => Ok(default),
            Some(flag @ (0 | 1)) => Ok(flag == 1),
            Some(other) => Err(Error::invalid(format!("parameter '{name}' is {other}, it must be 0 or 1"))),
        };
        let all = available_parallelism().map_or(1, usize::from);
        Ok(Self {
            intra_op_threads: match count("intra_op_thread_count")? {
                // As many as this process may use, which need not be as many as the machine has.
                0 => all,
                given => given,
            },
            inter_op_threads: match count("inter_op_thread_count")? {
                0 => all,
                given => given,
            },
            parallel: flag("execution_mode", false)?,
            memory_pattern: flag("enable_mem_pattern", true)?,
            level: level(config.json())?,
            idle: IDLE
                .into_iter()
                .filter(|name| config.parameters().any(|(given, _)| given == *name))
                .map(String::from)
                .collect(),
        })
    }

    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.idle.iter().map(|name| format!("parameter '{name}' has no effect"))
    }

    /// A session to be given its model.
    pub(crate) fn session(&self, environment: &Environment) -> ort::Result<SessionBuilder> {
        let level = match self.level {
            Level::Basic => GraphOptimizationLevel::Level1,
            Level::Extended => GraphOptimizationLevel::Level2,
            Level::All => GraphOptimizationLevel::All,
        };
        let builder = Session::builder(environment)?
            .with_intra_threads(self.intra_op_threads)?
            .with_memory_pattern(self.memory_pattern)?
            .with_optimization_level(level)?;
        Ok(if self.parallel {
            builder.with_parallel_execution(true)?.with_inter_threads(self.inter_op_threads)?
        } else {
            builder
        })
    }
}

/// `optimization { graph { level } }`: -1 basic, 1 extended, 0 or nothing all of them.
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
        other => Err(Error::invalid(format!(
            "optimization.graph.level is {other}: there are -1 (basic), 1 (extended) and 0 (all)"
        ))),
    }
}
