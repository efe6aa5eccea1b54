use crate::cli::flag::Flag;
use crate::cli::grammar::{COUNT, Grammar, INT, PORT};

pub(super) const HTTP: &[Flag] = &[
    Flag::works("allow-http", Grammar::Truth, "Whether the HTTP front end is on.").or("true"),
    Flag::works("http-address", Grammar::Text("ADDRESS"), "The address of the HTTP front end.").or("0.0.0.0"),
    Flag::works("http-port", PORT, "The port of the HTTP front end; 0 takes a free one.").or("8000"),
    Flag::works(
        "reuse-http-port",
        Grammar::Truth,
        "Whether other servers of the same user may listen on the port beside this one.",
    )
    .or("false"),
    Flag::works(
        "http-thread-count",
        Grammar::Whole(1, i32::MAX as i64),
        "Threads for all front ends, at most 256; the default is the number of cores, at most 8.",
    ),
    Flag::works(
        "http-max-input-size",
        Grammar::Whole(1, i32::MAX as i64),
        "The largest request body in bytes, also once it is inflated; also the largest compressed message of gRPC, \
         inflated. A larger body is refused as soon as that is known; its rest is read and thrown away for at most 10 s \
         and 256 MiB, so that its sender sees the answer.",
    )
    .or("67108864"),
    Flag::works(
        "http-header-forward-pattern",
        Grammar::Pattern,
        "Headers of an infer request whose names match become parameters of the request. The expression may match a \
         part of a name, without regard to case; names arrive in lower case. Blanks at the end of a value are kept, as \
         upstream keeps them, in requests of HTTP/1 that are not pipelined and whose head is below 64 KiB.",
    ),
    Flag::works(
        "http-restricted-api",
        Grammar::Restriction,
        "Groups of calls that need the header KEY with the value VALUE: health, metadata, inference, shared-memory, \
         model-config, model-repository, statistics, trace, logging.",
    )
    .repeats(),
];

const NOT_POOLED: &str = "requests and answers are not pooled";
const NO_POLICING: &str = "pings of clients are answered and not counted";

pub(super) const GRPC: &[Flag] = &[
    Flag::works("allow-grpc", Grammar::Truth, "Whether the gRPC front end is on.").or("true"),
    Flag::works("grpc-address", Grammar::Text("ADDRESS"), "The address of the gRPC front end.").or("0.0.0.0"),
    Flag::works("grpc-port", PORT, "The port of the gRPC front end; 0 takes a free one.").or("8001"),
    Flag::works(
        "reuse-grpc-port",
        Grammar::Truth,
        "Whether other servers of the same user may listen on the port beside this one.",
    )
    .or("false"),
    Flag::works(
        "grpc-header-forward-pattern",
        Grammar::Pattern,
        "Metadata of an infer request whose keys match become parameters of the request. The expression may match a \
         part of a key, without regard to case.",
    ),
    Flag::works(
        "grpc-restricted-protocol",
        Grammar::Restriction,
        "Groups of calls, as in --http-restricted-api, that need the metadata triton-grpc-protocol-KEY with the value \
         VALUE.",
    )
    .repeats(),
    Flag::works(
        "grpc-infer-response-compression-level",
        Grammar::Word(&["none", "low", "medium", "high"]),
        "Whether answers are compressed for clients that take it. Every level but none is the same here.",
    )
    .or("none"),
    Flag::works(
        "grpc-keepalive-time",
        Grammar::Whole(1, i32::MAX as i64),
        "Milliseconds of silence after which a connection is pinged.",
    )
    .or("7200000"),
    Flag::works(
        "grpc-keepalive-timeout",
        Grammar::Whole(1, i32::MAX as i64),
        "Milliseconds within which a ping must be answered.",
    )
    .or("20000"),
    Flag::idle(
        "grpc-keepalive-permit-without-calls",
        Grammar::Truth,
        "Whether connections without a call are pinged.",
        "connections are pinged whether they have a call or not",
    )
    .fine(&["true"]),
    Flag::works(
        "grpc-max-connection-age",
        Grammar::Whole(1, i32::MAX as i64),
        "Milliseconds after which a connection takes no more calls and ends; unbounded if not given.",
    ),
    Flag::works(
        "grpc-max-connection-age-grace",
        Grammar::Whole(0, i32::MAX as i64),
        "Milliseconds that running calls have once a connection has reached its age; unbounded if not given.",
    ),
    Flag::idle(
        "grpc-http2-max-pings-without-data",
        INT,
        "How many pings may be sent with no data between them.",
        "pings are only sent after --grpc-keepalive-time of silence",
    ),
    Flag::idle(
        "grpc-http2-min-recv-ping-interval-without-data",
        INT,
        "Milliseconds between two pings of a client that sends no data.",
        NO_POLICING,
    ),
    Flag::idle("grpc-http2-max-ping-strikes", INT, "How many pings too many end a connection.", NO_POLICING),
    Flag::idle(
        "grpc-infer-thread-count",
        Grammar::Whole(2, 128),
        "Threads of the gRPC front end.",
        "one set of threads serves all front ends: see --http-thread-count",
    ),
    Flag::idle("grpc-infer-allocation-pool-size", COUNT, "How many request objects are kept for reuse.", NOT_POOLED),
    Flag::idle(
        "grpc-max-response-pool-size",
        Grammar::Whole(1, i32::MAX as i64),
        "How many unsent answers a stream may hold.",
        "at most 64 answers of a request wait for a slow reader; then its model is asked to pause",
    ),
    Flag::works(
        "grpc-use-ssl",
        Grammar::Truth,
        "Whether gRPC is encrypted, with TLS 1.2 or 1.3; needs --grpc-server-cert and --grpc-server-key.",
    )
    .or("false"),
    Flag::works(
        "grpc-use-ssl-mutual",
        Grammar::Truth,
        "Whether gRPC is encrypted and clients must have a certificate; needs --grpc-root-cert too.",
    )
    .or("false"),
    Flag::works("grpc-server-cert", Grammar::Path("FILE"), "The server's certificate with its chain, as PEM."),
    Flag::works("grpc-server-key", Grammar::Path("FILE"), "The key of the server's certificate, as PEM."),
    Flag::works(
        "grpc-root-cert",
        Grammar::Path("FILE"),
        "The certificates that those of clients must lead to, as PEM; only used with --grpc-use-ssl-mutual.",
    ),
];

pub(super) const SHARED_MEMORY: &[Flag] = &[Flag::works(
    "allow-client-shm",
    Grammar::Truth,
    "Whether clients may register system shared memory and have tensors read from it and written to it. They can name \
     any region that the server's user may open: allow it for clients that you trust.",
)
.or("false")];

const NO_SAGEMAKER: &str = "the SageMaker front end is not implemented";
const NO_VERTEX: &str = "the Vertex AI front end is not implemented";

pub(super) const CLOUDS: &[Flag] = &[
    Flag::refused("allow-sagemaker", Grammar::Truth, "Whether the SageMaker front end is on.", NO_SAGEMAKER)
        .fine(&["false"]),
    Flag::idle("sagemaker-port", PORT, "The port of the SageMaker front end.", NO_SAGEMAKER),
    Flag::idle("sagemaker-safe-port-range", Grammar::PortRange, "Which ports it may have.", NO_SAGEMAKER),
    Flag::idle("sagemaker-thread-count", COUNT, "Threads of the SageMaker front end.", NO_SAGEMAKER),
    Flag::refused("allow-vertex-ai", Grammar::Truth, "Whether the Vertex AI front end is on.", NO_VERTEX)
        .fine(&["false"]),
    Flag::idle("vertex-ai-port", PORT, "The port of the Vertex AI front end.", NO_VERTEX),
    Flag::idle("vertex-ai-thread-count", COUNT, "Threads of the Vertex AI front end.", NO_VERTEX),
    Flag::idle(
        "vertex-ai-default-model",
        Grammar::Text("MODEL"),
        "The model of Vertex AI's calls.",
        NO_VERTEX,
    ),
];
