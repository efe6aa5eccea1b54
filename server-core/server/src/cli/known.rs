//! tritonserver's flags that have no effect here yet. None is silently ignored: each either warns why it changes
//! nothing, or is refused because a deployment would rely on it.

use clap::Args;

macro_rules! known_flags {
    ($($field:ident $flag:literal $verdict:ident $why:literal;)*) => {
        /// The values given for flags that are only known by name.
        #[derive(Debug, Default, Args)]
        pub struct KnownFlags {
            $(
                #[arg(long = $flag, value_name = "VALUE", hide = true, allow_hyphen_values = true)]
                pub(crate) $field: Vec<String>,
            )*
        }

        /// What is to be said of the flags that were given.
        pub fn review(flags: &KnownFlags) -> Vec<Finding> {
            let mut findings = Vec::new();
            $(
                if !flags.$field.is_empty() {
                    findings.push(Finding { flag: concat!("--", $flag), refused: known_flags!(@ $verdict), why: $why });
                }
            )*
            findings
        }
    };
    (@ warn) => { false };
    (@ refuse) => { true };
}

/// A flag that was given and does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The flag with its dashes.
    pub flag: &'static str,
    /// The server must not start: somebody relies on what the flag does.
    pub refused: bool,
    /// Why, and what to do.
    pub why: &'static str,
}

known_flags! {
    // Safety: never accepted without effect.
    http_restricted_api "http-restricted-api" refuse "restricted APIs are not implemented; put a proxy in front";
    grpc_restricted_protocol "grpc-restricted-protocol" refuse "restricted protocols are not implemented; put a proxy in front";
    grpc_use_ssl "grpc-use-ssl" refuse "TLS is not implemented; end it at a proxy";
    grpc_use_ssl_mutual "grpc-use-ssl-mutual" refuse "TLS is not implemented; end it at a proxy";
    grpc_server_cert "grpc-server-cert" refuse "TLS is not implemented; end it at a proxy";
    grpc_server_key "grpc-server-key" refuse "TLS is not implemented; end it at a proxy";
    grpc_root_cert "grpc-root-cert" refuse "TLS is not implemented; end it at a proxy";
    model_load_gpu_limit "model-load-gpu-limit" refuse "a limit of GPU memory at load is not implemented";
    min_compute "min-supported-compute-capability" refuse "no backend of this build uses a GPU";
    // Behaviour that a deployment would miss.
    http_header_forward_pattern "http-header-forward-pattern" refuse "header forwarding is not implemented";
    grpc_header_forward_pattern "grpc-header-forward-pattern" refuse "header forwarding is not implemented";
    allow_client_shm "allow-client-shm" refuse "shared memory is not implemented; leave the flag out";
    cache_directory "cache-directory" refuse "the only cache is the built-in one, local";
    rate_limit "rate-limit" refuse "the rate limiter is not implemented";
    rate_limit_resource "rate-limit-resource" refuse "the rate limiter is not implemented";
    model_namespacing "model-namespacing" refuse "model namespacing is not implemented";
    repoagent_directory "repoagent-directory" refuse "repository agents are not implemented";
    trace_config "trace-config" refuse "tracing is not implemented";
    trace_file "trace-file" refuse "tracing is not implemented";
    trace_level "trace-level" refuse "tracing is not implemented";
    trace_rate "trace-rate" refuse "tracing is not implemented";
    trace_count "trace-count" refuse "tracing is not implemented";
    trace_log_frequency "trace-log-frequency" refuse "tracing is not implemented";
    metrics_config "metrics-config" refuse "metric options are not implemented";
    allow_sagemaker "allow-sagemaker" refuse "the SageMaker front end is not implemented";
    allow_vertex_ai "allow-vertex-ai" refuse "the Vertex AI front end is not implemented";
    grpc_infer_response_compression_level "grpc-infer-response-compression-level" refuse "gRPC compression is not implemented";
    strict_model_config "strict-model-config" refuse "deprecated upstream; give --disable-auto-complete-config";
    host_policy "host-policy" warn "host policies are not implemented; instances run on all cores";
    // Tuning of parts that are built differently here.
    reuse_http_port "reuse-http-port" warn "ports are never shared";
    reuse_grpc_port "reuse-grpc-port" warn "ports are never shared";
    grpc_infer_thread_count "grpc-infer-thread-count" warn "one pool of threads serves all front ends: see --http-thread-count";
    grpc_infer_allocation_pool_size "grpc-infer-allocation-pool-size" warn "requests are not pooled";
    grpc_max_response_pool_size "grpc-max-response-pool-size" warn "responses are not pooled; a slow reader pauses its model";
    grpc_keepalive_time "grpc-keepalive-time" warn "keep-alive pings are not sent";
    grpc_keepalive_timeout "grpc-keepalive-timeout" warn "keep-alive pings are not sent";
    grpc_keepalive_permit "grpc-keepalive-permit-without-calls" warn "keep-alive pings are not sent";
    grpc_max_pings "grpc-http2-max-pings-without-data" warn "keep-alive pings are not sent";
    grpc_min_ping "grpc-http2-min-recv-ping-interval-without-data" warn "pings are not policed";
    grpc_ping_strikes "grpc-http2-max-ping-strikes" warn "pings are not policed";
    grpc_max_connection_age "grpc-max-connection-age" warn "connections are not aged";
    grpc_max_connection_age_grace "grpc-max-connection-age-grace" warn "connections are not aged";
    metrics_interval_ms "metrics-interval-ms" warn "values are read when they are asked for";
    allow_gpu_metrics "allow-gpu-metrics" warn "no backend of this build uses a GPU";
    pinned_memory_pool_byte_size "pinned-memory-pool-byte-size" warn "no backend of this build uses a GPU";
    cuda_memory_pool_byte_size "cuda-memory-pool-byte-size" warn "no backend of this build uses a GPU";
    cuda_virtual_address_size "cuda-virtual-address-size" warn "no backend of this build uses a GPU";
    enable_peer_access "enable-peer-access" warn "no backend of this build uses a GPU";
    buffer_manager_thread_count "buffer-manager-thread-count" warn "payloads are not copied by the core";
}
