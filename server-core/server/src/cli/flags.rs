use std::path::PathBuf;

use clap::{ArgMatches, Args};
use regex::Regex;

use super::command::{CHECKPOINT, Values};
use super::grammar;
use super::review::{Finding, review};

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

/// The flags of `trireme healthcheck`.
#[derive(Debug, Args)]
pub struct HealthCheck {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://localhost:8000")]
    pub url: String,
    /// Ask whether it lives, not whether it is ready.
    #[arg(long)]
    pub live: bool,
    /// Ask whether this model is ready.
    #[arg(long, value_name = "MODEL", conflicts_with = "live")]
    pub model: Option<String>,
    /// How many seconds the answer may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub timeout: u32,
}

/// The flags of `trireme conformance`.
#[derive(Debug, Args)]
pub struct Conformance {
    /// The library, libtrireme_NAME.so.
    pub library: PathBuf,
    /// A model of it: config.pbtxt, versions, and conformance.json if there is something to say. Without it only the
    /// library is looked at.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// How many seconds a check may take, at least 1.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub limit_seconds: u64,
    /// Try one check in this process; what the program itself does for each.
    #[arg(long, value_name = "CHECK", hide = true)]
    pub one: Option<String>,
}

/// The flags of `trireme new-backend`.
#[derive(Debug, Args)]
pub struct NewBackend {
    /// Letters, digits, `_` and `-`, a letter first.
    pub name: String,
    /// The folder of the SDK's crates: packaged ones, or backend-api of a checkout.
    #[arg(long, value_name = "DIR")]
    pub sdk: PathBuf,
    /// Where the new crate goes; NAME without it.
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
}

/// The arguments of a command that is handed over to a program of its own.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Those of the program; `--help` names them.
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

/// The flags of `trireme chat`.
#[derive(Debug, Args)]
pub struct Chat {
    /// A model of the server, or a checkpoint: a directory or a .gguf file, which is served for the conversation only.
    pub model: String,
    /// The server; http://localhost:8000 unless MODEL is a checkpoint.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The key, if the server asks for one.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// What the model is told first.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// 0 always gives the likeliest answer, 2 nearly any.
    #[arg(long, value_name = "NUMBER")]
    pub temperature: Option<f64>,
    /// Tokens that an answer has at most.
    #[arg(long, value_name = "COUNT")]
    pub max_tokens: Option<u32>,
    /// The same seed gives the same answers.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<i64>,
    /// Where the backends are; the default is `backends` beside the program.
    #[arg(long, value_name = "DIR")]
    pub backend_directory: Option<PathBuf>,
}

/// The flags of `trireme batch`.
#[derive(Debug, Args)]
pub struct Batch {
    /// A checkpoint directory or a .gguf file, in the place of a repository.
    #[arg(required_unless_present = "model_repository", conflicts_with = "model_repository")]
    pub checkpoint: Option<PathBuf>,
    /// A repository of models; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub model_repository: Vec<PathBuf>,
    /// The calls, one JSON object a line: custom_id, method, url and body.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Where the answers go, in the order of the lines. One of an earlier run that was cut short is continued.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Calls that are under way at a time; from the models' batch sizes without it, 256 at least.
    #[arg(long, value_name = "COUNT", value_parser = positive)]
    pub concurrency: Option<usize>,
    /// The name of the checkpoint's model; made from its file's without it.
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Load only this model of the repositories; may be given several times.
    #[arg(long, value_name = "MODEL")]
    pub load_model: Vec<String>,
    /// Where the backends are; the default is `backends` beside the program.
    #[arg(long, value_name = "DIR")]
    pub backend_directory: Option<PathBuf>,
    /// A setting of a backend; may be given several times.
    #[arg(long, value_name = "BACKEND,KEY=VALUE")]
    pub backend_config: Vec<String>,
    /// Run models of one backend by another; may be given several times.
    #[arg(long, value_name = "FROM=TO")]
    pub backend_fallback: Vec<String>,
    /// Seconds that lines under way have after a signal.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub exit_timeout_secs: u64,
    /// 0 logs warnings and errors only.
    #[arg(long, value_name = "LEVEL", default_value_t = 0)]
    pub log_verbose: u32,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=1 << 20).contains(count))
        .ok_or_else(|| "a number from 1 to 1048576".to_owned())
}

/// Who decides which models are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlModeFlag {
    /// All models, once, at start.
    None,
    /// Rescan the repositories from time to time.
    Poll,
    /// What --load-model names, then the load and unload calls.
    Explicit,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormatFlag {
    /// One readable line a message.
    Default,
    /// As default, with ISO 8601 times.
    Iso8601,
    /// One JSON object a line.
    Json,
}

/// The flags of `trireme serve` that do something, by tritonserver's names.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the flag of its name; the table describes it")]
pub struct Serve {
    /// What is served in the place of a repository.
    pub checkpoint: Option<PathBuf>,
    pub model_repository: Vec<PathBuf>,
    pub model_name: Option<String>,
    pub load_format: String,
    pub print_config: bool,
    pub model_control_mode: ControlModeFlag,
    pub repository_poll_secs: u32,
    pub load_model: Vec<String>,
    pub model_config_name: Option<String>,
    /// Also set by `--strict-model-config=true`.
    pub disable_auto_complete_config: bool,
    pub model_load_thread_count: usize,
    pub model_load_retry_count: u32,
    pub strict_readiness: bool,
    pub exit_on_error: bool,
    pub exit_timeout_secs: u64,
    pub drain_delay: u64,
    pub id: String,
    pub endpoint_file: Option<PathBuf>,

    pub backend_directory: Option<PathBuf>,
    pub backend_config: Vec<String>,
    pub use_cuda_graph: Option<bool>,
    pub backend_cache: Option<PathBuf>,
    pub backend_fallback: Vec<String>,
    pub allow_model_backends: bool,

    pub allow_http: bool,
    pub http_address: String,
    pub http_port: u16,
    pub reuse_http_port: bool,
    pub http_thread_count: Option<usize>,
    pub http_max_input_size: usize,
    pub http_header_forward_pattern: Option<Regex>,
    pub http_restricted_api: Vec<String>,

    pub allow_grpc: bool,
    pub grpc_address: String,
    pub grpc_port: u16,
    pub reuse_grpc_port: bool,
    pub grpc_header_forward_pattern: Option<Regex>,
    pub grpc_restricted_protocol: Vec<String>,
    /// Whether answers are compressed: any level but none.
    pub grpc_compress_answers: bool,
    /// Milliseconds, as the three after it.
    pub grpc_keepalive_time: u64,
    pub grpc_keepalive_timeout: u64,
    pub grpc_max_connection_age: Option<u64>,
    pub grpc_max_connection_age_grace: Option<u64>,

    /// Also set by `--grpc-use-ssl-mutual`.
    pub grpc_use_ssl: bool,
    pub grpc_use_ssl_mutual: bool,
    pub grpc_server_cert: Option<PathBuf>,
    pub grpc_server_key: Option<PathBuf>,
    pub grpc_root_cert: Option<PathBuf>,

    pub cache_config: Vec<String>,
    pub response_cache_byte_size: Option<usize>,
    pub allow_client_shm: bool,
    /// `--rate-limit` is not `off`.
    pub rate_limit: bool,
    pub rate_limit_resource: Vec<String>,
    pub pinned_memory_pool_byte_size: usize,
    pub cuda_memory_pool_byte_size: Vec<String>,

    pub allow_metrics: bool,
    pub allow_cpu_metrics: bool,
    pub allow_gpu_metrics: bool,
    pub metrics_address: Option<String>,
    pub metrics_port: u16,
    pub metrics_config: Vec<String>,

    pub log_verbose: u32,
    pub log_info: bool,
    pub log_warning: bool,
    pub log_error: bool,
    pub log_format: LogFormatFlag,
    pub log_file: Option<PathBuf>,

    /// What is to be said of flags that were given and do nothing.
    pub findings: Vec<Finding>,
}

impl Serve {
    pub(super) fn new(matches: &ArgMatches) -> Self {
        let values = Values(matches);
        Self {
            checkpoint: values.path(CHECKPOINT),
            model_repository: values.paths("model-repository"),
            model_name: values.text("model-name"),
            load_format: values.word("load-format").to_ascii_lowercase(),
            print_config: values.truth("print-config"),
            model_control_mode: match values.word("model-control-mode").to_ascii_lowercase().as_str() {
                "poll" => ControlModeFlag::Poll,
                "explicit" => ControlModeFlag::Explicit,
                _ => ControlModeFlag::None,
            },
            repository_poll_secs: values.number("repository-poll-secs").unwrap_or(15),
            load_model: values.texts("load-model"),
            model_config_name: values.text("model-config-name"),
            disable_auto_complete_config: values.truth("disable-auto-complete-config")
                || values.truth("strict-model-config"),
            model_load_thread_count: values.number("model-load-thread-count").unwrap_or(4),
            model_load_retry_count: values.number("model-load-retry-count").unwrap_or(0),
            strict_readiness: values.truth("strict-readiness"),
            exit_on_error: values.truth("exit-on-error"),
            exit_timeout_secs: values.number("exit-timeout-secs").unwrap_or(30),
            drain_delay: values.number("drain-delay").unwrap_or(0),
            id: values.word("id"),
            endpoint_file: values.path("endpoint-file"),
            backend_directory: values.path("backend-directory"),
            backend_config: values.texts("backend-config"),
            use_cuda_graph: values.text("use-cuda-graph").map(|_| values.truth("use-cuda-graph")),
            backend_cache: values.path("backend-cache"),
            backend_fallback: values.texts("backend-fallback"),
            allow_model_backends: values.truth("allow-model-backends"),
            allow_http: values.truth("allow-http"),
            http_address: values.word("http-address"),
            http_port: values.number("http-port").unwrap_or(8000),
            reuse_http_port: values.truth("reuse-http-port"),
            http_thread_count: values.number("http-thread-count"),
            http_max_input_size: values.number("http-max-input-size").unwrap_or(64 << 20),
            http_header_forward_pattern: values.pattern("http-header-forward-pattern"),
            http_restricted_api: values.texts("http-restricted-api"),
            allow_grpc: values.truth("allow-grpc"),
            grpc_address: values.word("grpc-address"),
            grpc_port: values.number("grpc-port").unwrap_or(8001),
            reuse_grpc_port: values.truth("reuse-grpc-port"),
            grpc_header_forward_pattern: values.pattern("grpc-header-forward-pattern"),
            grpc_restricted_protocol: values.texts("grpc-restricted-protocol"),
            grpc_compress_answers: !values
                .word("grpc-infer-response-compression-level")
                .eq_ignore_ascii_case("none"),
            grpc_keepalive_time: values.number("grpc-keepalive-time").unwrap_or(7_200_000),
            grpc_keepalive_timeout: values.number("grpc-keepalive-timeout").unwrap_or(20_000),
            grpc_max_connection_age: values.number("grpc-max-connection-age"),
            grpc_max_connection_age_grace: values.number("grpc-max-connection-age-grace"),
            grpc_use_ssl: values.truth("grpc-use-ssl") || values.truth("grpc-use-ssl-mutual"),
            grpc_use_ssl_mutual: values.truth("grpc-use-ssl-mutual"),
            grpc_server_cert: values.path("grpc-server-cert"),
            grpc_server_key: values.path("grpc-server-key"),
            grpc_root_cert: values.path("grpc-root-cert"),
            cache_config: values.texts("cache-config"),
            response_cache_byte_size: values.number("response-cache-byte-size"),
            allow_client_shm: values.truth("allow-client-shm"),
            rate_limit: !values.word("rate-limit").eq_ignore_ascii_case("off"),
            rate_limit_resource: values.texts("rate-limit-resource"),
            pinned_memory_pool_byte_size: values.number("pinned-memory-pool-byte-size").unwrap_or(256 << 20),
            cuda_memory_pool_byte_size: values.texts("cuda-memory-pool-byte-size"),
            allow_metrics: values.truth("allow-metrics"),
            allow_cpu_metrics: values.truth("allow-cpu-metrics"),
            allow_gpu_metrics: values.truth("allow-gpu-metrics"),
            metrics_address: values.text("metrics-address"),
            metrics_port: values.number("metrics-port").unwrap_or(8002),
            metrics_config: values.texts("metrics-config"),
            log_verbose: values.text("log-verbose").as_deref().and_then(grammar::level).unwrap_or(0),
            log_info: values.truth("log-info"),
            log_warning: values.truth("log-warning"),
            log_error: values.truth("log-error"),
            log_format: match values.word("log-format").to_ascii_lowercase().as_str() {
                "iso8601" => LogFormatFlag::Iso8601,
                "json" => LogFormatFlag::Json,
                _ => LogFormatFlag::Default,
            },
            log_file: values.path("log-file"),
            findings: review(&values),
        }
    }
}
