use crate::cli::flag::Flag;
use crate::cli::grammar::{Grammar, INT};

pub(super) const MODELS: &[Flag] = &[
    Flag::works(
        "model-repository",
        Grammar::Path("DIR"),
        "A directory of models, or s3://bucket/path, s3://host:port/bucket/path, s3://https://host:port/bucket/path.",
    )
        .alias("model-store")
        .repeats(),
    Flag::works(
        "model-name",
        Grammar::Text("NAME"),
        "The name under which a checkpoint given in the place of a repository is served; without it that of its file or \
         directory. Not a flag of tritonserver.",
    ),
    Flag::works(
        "load-format",
        Grammar::Word(&["auto", "dummy"]),
        "How a checkpoint given in the place of a repository is read: auto looks at its files, dummy makes random weights of \
         the shapes in its config.json, for measuring. Not a flag of tritonserver.",
    )
    .or("auto"),
    Flag::works(
        "print-config",
        Grammar::Truth,
        "Write the config.pbtxt that a checkpoint given in the place of a repository is served with, and end. Not a flag \
         of tritonserver.",
    )
    .or("false")
    .alone("true"),
    Flag::works(
        "model-control-mode",
        Grammar::Word(&["none", "poll", "explicit"]),
        "Who decides which models are loaded: none loads all of them once, at start; poll looks for changes from time \
         to time; explicit loads what --load-model names, then does what the load and unload calls say.",
    )
    .or("none"),
    Flag::works(
        "repository-poll-secs",
        Grammar::Whole(1, i32::MAX as i64),
        "Seconds between two looks at the repositories (poll mode only).",
    )
    .or("15"),
    Flag::works("load-model", Grammar::Text("MODEL"), "A model to load at start (explicit mode only); * for all.")
        .repeats(),
    Flag::works(
        "model-config-name",
        Grammar::Text("NAME"),
        "Read configs/NAME.pbtxt of a model in the place of its config.pbtxt where it exists.",
    ),
    Flag::works("disable-auto-complete-config", Grammar::Truth, "Do not let backends complete configurations.")
        .or("false")
        .alone("true"),
    Flag::works(
        "model-load-thread-count",
        Grammar::Whole(1, i32::MAX as i64),
        "How many models are loaded at once, at most 256.",
    )
    .or("4"),
    Flag::works(
        "model-load-retry-count",
        Grammar::Whole(0, i32::MAX as i64),
        "How often a model that cannot be loaded is tried again before it counts as failed.",
    )
    .or("0"),
    Flag::refused(
        "model-namespacing",
        Grammar::Truth,
        "Whether models of the same name may be in several repositories.",
        "model namespacing is not implemented; give the models names of their own",
    )
    .fine(&["false"]),
    Flag::works("strict-readiness", Grammar::Truth, "Whether the server is ready only if every requested model is.")
        .or("true"),
    Flag::works("exit-on-error", Grammar::Truth, "Whether a model that cannot be loaded at start ends the server.")
        .or("true"),
    Flag::works(
        "exit-timeout-secs",
        Grammar::Whole(0, i32::MAX as i64),
        "How many seconds running requests may go on after SIGTERM and --drain-delay.",
    )
    .or("30"),
    Flag::works(
        "drain-delay",
        Grammar::Whole(0, i32::MAX as i64),
        "For how many seconds after SIGTERM the server still takes requests while it says that it is not ready: as long as \
         balancers need to look elsewhere. Ctrl-C does not wait. Not a flag of tritonserver.",
    )
    .or("0"),
    Flag::works("id", Grammar::Text("NAME"), "The server's name in its metadata.").or("triton"),
    Flag::works(
        "endpoint-file",
        Grammar::Path("FILE"),
        "Write the addresses of the front ends here once the models are loaded, one NAME=ADDRESS a line, and take the \
         file away when the server is told to end. Not a flag of tritonserver.",
    ),
    Flag::idle(
        "repoagent-directory",
        Grammar::Path("DIR"),
        "Where repository agents are.",
        "repository agents are not implemented; a model that names one is refused at load",
    ),
];

pub(super) const BACKENDS: &[Flag] = &[
    Flag::works(
        "backend-directory",
        Grammar::Path("DIR"),
        "Where the backends are; the default is the directory backends beside the program.",
    ),
    Flag::works(
        "backend-config",
        Grammar::NamedSetting("BACKEND"),
        "A setting for a backend; without a name it is for all of them.",
    )
    .repeats(),
    Flag::works(
        "use-cuda-graph",
        Grammar::Truth,
        "Whether the backend tensorrtllm runs decode steps as CUDA graphs where a model does not say: the same as \
         --backend-config tensorrtllm,use_cuda_graph=BOOL. Not a flag of tritonserver.",
    )
    .alias("use_cuda_graph")
    .alone("true"),
    Flag::works(
        "backend-cache",
        Grammar::Path("DIR"),
        "Where copies of changed backend libraries are kept; the default is a temporary directory. Not a flag of \
         tritonserver.",
    ),
    Flag::works(
        "backend-fallback",
        Grammar::Setting,
        "Use one backend in the place of another: tensorrtllm=cpu. Not a flag of tritonserver.",
    )
    .repeats(),
    Flag::works(
        "allow-model-backends",
        Grammar::Truth,
        "Whether a backend library inside a model's directory may be loaded. It is code: allow it only for \
         repositories that you trust as you trust the server. Not a flag of tritonserver.",
    )
    .or("false")
    .alone("true"),
];

pub(super) const CACHE: &[Flag] = &[
    Flag::works(
        "cache-config",
        Grammar::NamedSetting("CACHE"),
        "The response cache and its settings: local,size=BYTES.",
    )
    .repeats(),
    Flag::idle(
        "cache-directory",
        Grammar::Path("DIR"),
        "Where cache libraries are.",
        "the only cache is the built-in one, local",
    ),
    Flag::works("response-cache-byte-size", INT, "Deprecated: the same as --cache-config=local,size=BYTES."),
];
