use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// The Trireme inference server.
#[derive(Debug, Parser)]
#[command(name = "trireme", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the models of one or more repositories.
    Serve(Box<Serve>),
    /// Read a whole repository without serving it and report every finding with file and line.
    Check(Check),
}

/// The flags of `trireme check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The repository to read.
    pub repository: PathBuf,
    /// Where the backends are; the default is `backends` beside the program.
    #[arg(long, value_name = "DIR")]
    pub backend_directory: Option<PathBuf>,
    /// Count backend libraries in the models' own directories.
    #[arg(long)]
    pub allow_model_backends: bool,
}

/// Who decides which models are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ControlModeFlag {
    /// All models, once, at start.
    None,
    /// Rescan the repositories from time to time.
    Poll,
    /// What --load-model names, then the load and unload calls.
    Explicit,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatFlag {
    /// One readable line a message.
    Default,
    /// As default, with ISO 8601 times.
    #[value(name = "ISO8601")]
    Iso8601,
    /// One JSON object a line.
    Json,
}

/// A flag's truth value, as tritonserver reads it.
fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" => Ok(true),
        "false" | "0" | "off" => Ok(false),
        _ => Err("expected true, false, 1, 0, on or off".to_owned()),
    }
}

/// The flags of `trireme serve`, by tritonserver's names.
#[derive(Debug, Args)]
#[command(next_help_heading = "Models")]
pub struct Serve {
    /// A directory of models; may be given several times.
    #[arg(long, visible_alias = "model-store", value_name = "DIR", required = true)]
    pub model_repository: Vec<PathBuf>,
    /// Where the backends are; the default is `backends` beside the program.
    #[arg(long, value_name = "DIR")]
    pub backend_directory: Option<PathBuf>,
    /// Where copies of changed backend libraries are kept; the default is a temporary directory.
    #[arg(long, value_name = "DIR")]
    pub backend_cache: Option<PathBuf>,
    /// Whether a backend library inside a model's directory may be loaded. It is code: allow it only for repositories
    /// that you trust as you trust the server.
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
          value_parser = truth, action = ArgAction::Set)]
    pub allow_model_backends: bool,
    /// A setting for a backend: `BACKEND,KEY=VALUE`, or `KEY=VALUE` for all of them.
    #[arg(long, value_name = "[BACKEND,]KEY=VALUE")]
    pub backend_config: Vec<String>,
    /// Use one backend in the place of another: `tensorrtllm=cpu`.
    #[arg(long, value_name = "FROM=TO")]
    pub backend_fallback: Vec<String>,
    /// The response cache: `local,size=BYTES`.
    #[arg(long, value_name = "local,size=BYTES")]
    pub cache_config: Vec<String>,
    /// Deprecated: the same as --cache-config=local,size=BYTES.
    #[arg(long, value_name = "BYTES")]
    pub response_cache_byte_size: Option<usize>,
    /// Who decides which models are loaded.
    #[arg(long, value_enum, default_value = "none", ignore_case = true)]
    pub model_control_mode: ControlModeFlag,
    /// How long it is from one look at the repositories to the next (poll mode only).
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub repository_poll_secs: u32,
    /// A model to load at start (explicit mode only); `*` for all.
    #[arg(long, value_name = "MODEL")]
    pub load_model: Vec<String>,
    /// Read `configs/NAME.pbtxt` of a model in the place of its `config.pbtxt` where it exists.
    #[arg(long, value_name = "NAME")]
    pub model_config_name: Option<String>,
    /// Do not let backends complete configurations.
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
          value_parser = truth, action = ArgAction::Set)]
    pub disable_auto_complete_config: bool,
    /// How many models are loaded at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub model_load_thread_count: u16,
    /// How often a model that cannot be loaded is tried again before it counts as failed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub model_load_retry_count: u32,
    /// Whether the server is ready only if every requested model is.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set)]
    pub strict_readiness: bool,
    /// Whether a model that cannot be loaded at start ends the server.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set)]
    pub exit_on_error: bool,
    /// How long running requests may go on after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub exit_timeout_secs: u64,
    /// The server's name in its metadata.
    #[arg(long, value_name = "NAME", default_value = "triton")]
    pub id: String,

    /// Whether the HTTP front end is on.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set,
          help_heading = "Front ends")]
    pub allow_http: bool,
    /// The address of the HTTP front end.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0", help_heading = "Front ends")]
    pub http_address: String,
    /// The port of the HTTP front end; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8000, help_heading = "Front ends")]
    pub http_port: u16,
    /// The largest request body, inflated, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, help_heading = "Front ends")]
    pub http_max_input_size: usize,
    /// Threads for all front ends; the default is the number of cores, at most 8.
    #[arg(long, value_name = "N", help_heading = "Front ends")]
    pub http_thread_count: Option<usize>,
    /// Whether the gRPC front end is on.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set,
          help_heading = "Front ends")]
    pub allow_grpc: bool,
    /// The address of the gRPC front end.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0", help_heading = "Front ends")]
    pub grpc_address: String,
    /// The port of the gRPC front end; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8001, help_heading = "Front ends")]
    pub grpc_port: u16,
    /// Whether the metrics are served.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set,
          help_heading = "Front ends")]
    pub allow_metrics: bool,
    /// The address of the metrics; the default is that of HTTP.
    #[arg(long, value_name = "ADDRESS", help_heading = "Front ends")]
    pub metrics_address: Option<String>,
    /// The port of the metrics; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8002, help_heading = "Front ends")]
    pub metrics_port: u16,
    /// Whether the metrics of the machine's CPUs are shown.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set,
          help_heading = "Front ends")]
    pub allow_cpu_metrics: bool,

    /// How much is told: 0 is the usual, 1 and more is verbose.
    #[arg(long, value_name = "LEVEL", default_value = "0", default_missing_value = "1", num_args = 0..=1,
          help_heading = "Log")]
    pub log_verbose: u32,
    /// Whether information is logged.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set,
          help_heading = "Log")]
    pub log_info: bool,
    /// Whether warnings are logged.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set,
          help_heading = "Log")]
    pub log_warning: bool,
    /// Whether errors are logged.
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, action = ArgAction::Set,
          help_heading = "Log")]
    pub log_error: bool,
    /// The form of log lines.
    #[arg(long, value_enum, default_value = "default", ignore_case = true, help_heading = "Log")]
    pub log_format: LogFormatFlag,
    /// Write the log here in the place of standard error.
    #[arg(long, value_name = "FILE", help_heading = "Log")]
    pub log_file: Option<PathBuf>,

    /// Flags of tritonserver that this server knows by name only; see `review`.
    #[command(flatten)]
    pub known: super::known::KnownFlags,
}
