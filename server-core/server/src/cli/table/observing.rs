use crate::cli::flag::Flag;
use crate::cli::grammar::{Grammar, INT, PORT};

pub(super) const METRICS: &[Flag] = &[
    Flag::works("allow-metrics", Grammar::Truth, "Whether the metrics are served.").or("true"),
    Flag::works(
        "allow-gpu-metrics",
        Grammar::Truth,
        "Whether the metrics of GPUs are shown; they come with the backend tensorrtllm.",
    )
    .or("true"),
    Flag::works("allow-cpu-metrics", Grammar::Truth, "Whether the metrics of the machine's CPUs are shown.")
        .or("true"),
    Flag::works(
        "metrics-address",
        Grammar::Text("ADDRESS"),
        "The address of the metrics; the default is that of HTTP.",
    ),
    Flag::works("metrics-port", PORT, "The port of the metrics; 0 takes a free one.").or("8002"),
    Flag::idle(
        "metrics-interval-ms",
        Grammar::Number,
        "Milliseconds between two readings of the machine's metrics.",
        "values are read when they are asked for",
    ),
    Flag::works(
        "metrics-config",
        Grammar::Setting,
        "Which metrics of latencies are kept: counter_latencies=true|false, summary_latencies=true|false, \
         summary_quantiles=QUANTILE:ERROR,…, histogram_latencies=true|false.",
    )
    .repeats(),
];

pub(super) const LOG: &[Flag] = &[
    Flag::works("log-verbose", Grammar::Level, "How much is told: 0 is the usual, 1 and more is verbose.")
        .or("0")
        .alone("1"),
    Flag::works("log-info", Grammar::Truth, "Whether information is logged.").or("true"),
    Flag::works("log-warning", Grammar::Truth, "Whether warnings are logged.").or("true"),
    Flag::works("log-error", Grammar::Truth, "Whether errors are logged.").or("true"),
    Flag::works(
        "log-format",
        Grammar::Word(&["default", "ISO8601", "json"]),
        "The form of log lines: a time of day, a whole ISO 8601 time, or one JSON object a line (not a value of \
         tritonserver).",
    )
    .or("default"),
    Flag::works("log-file", Grammar::Path("FILE"), "Write the log here in the place of standard error."),
];

const NO_TRACING: &str = "tracing is not implemented; no trace is written";

pub(super) const TRACING: &[Flag] = &[
    Flag::idle(
        "trace-config",
        Grammar::NamedSetting("MODE"),
        "What is traced and where to: level=TIMESTAMPS, rate=N, count=N, triton,file=FILE, opentelemetry,url=URL.",
        NO_TRACING,
    )
    .fine(&["level=OFF"])
    .repeats(),
];

const NO_TRACING_OLD: &str = "tracing is not implemented; the flag is deprecated in favour of --trace-config";

pub(super) const DEPRECATED: &[Flag] = &[
    Flag::works(
        "strict-model-config",
        Grammar::Truth,
        "Deprecated: true is the same as --disable-auto-complete-config.",
    ),
    Flag::idle("trace-file", Grammar::Path("FILE"), "Deprecated: see --trace-config.", NO_TRACING_OLD),
    Flag::idle("trace-level", Grammar::Text("LEVEL"), "Deprecated: see --trace-config.", NO_TRACING_OLD)
        .fine(&["OFF", "false"])
        .repeats(),
    Flag::idle("trace-rate", INT, "Deprecated: see --trace-config.", NO_TRACING_OLD),
    Flag::idle("trace-count", INT, "Deprecated: see --trace-config.", NO_TRACING_OLD),
    Flag::idle("trace-log-frequency", INT, "Deprecated: see --trace-config.", NO_TRACING_OLD),
];
