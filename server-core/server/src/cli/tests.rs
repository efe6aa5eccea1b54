#![allow(clippy::unwrap_used)]

use super::*;

fn serve(arguments: &[&str]) -> Result<Serve, String> {
    let all = ["trireme", "serve"].iter().chain(arguments).map(OsString::from);
    match parse(all) {
        Ok(Command::Serve(serve)) => Ok(*serve),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn given(arguments: &[&str]) -> Serve {
    serve(&[&["--model-repository", "/m"], arguments].concat()).unwrap()
}

#[test]
fn every_name_is_there_once() {
    command::command().debug_assert();
    let mut names: Vec<_> = table::flags().map(|flag| flag.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_default_has_the_form_of_its_flag() {
    for flag in table::flags() {
        for value in [flag.default, flag.alone].into_iter().chain(flag.fine.iter().copied()) {
            assert!(value.is_empty() || flag.grammar.check(value).is_ok(), "--{} {value}", flag.name);
        }
        // Only a flag that does nothing is spoken of.
        assert!(flag.effect != Effect::Works || flag.fine.is_empty(), "--{}", flag.name);
    }
}

#[test]
fn defaults_are_those_of_tritonserver() {
    let flags = given(&[]);
    assert_eq!((flags.http_port, flags.grpc_port, flags.metrics_port), (8000, 8001, 8002));
    assert_eq!((flags.exit_timeout_secs, flags.model_load_thread_count), (30, 4));
    assert_eq!(flags.http_max_input_size, 67_108_864);
    assert!(flags.strict_readiness && flags.exit_on_error && flags.allow_metrics && flags.log_info);
    assert!(!flags.allow_client_shm && !flags.disable_auto_complete_config && !flags.grpc_compress_answers);
    assert_eq!(flags.findings, []);
}

/// Every flag of tritonserver 2.73 with a value that it takes there.
const UPSTREAM: &[&str] = &[
    "--id=x",
    "--exit-timeout-secs=5",
    "--model-store=/a",
    "--model-repository=/b",
    "--exit-on-error=false",
    "--disable-auto-complete-config",
    "--strict-readiness=0",
    "--model-control-mode=poll",
    "--repository-poll-secs=5",
    "--load-model=m",
    "--model-config-name=c",
    "--model-load-thread-count=2",
    "--model-load-retry-count=1",
    "--model-namespacing=false",
    "--enable-peer-access=true",
    "--allow-http=true",
    "--http-address=127.0.0.1",
    "--http-port=1",
    "--reuse-http-port=true",
    "--http-header-forward-pattern=x-.*",
    "--http-thread-count=2",
    "--http-max-input-size=1000",
    "--http-restricted-api=health,metadata:k=v",
    "--allow-grpc=true",
    "--grpc-address=127.0.0.1",
    "--grpc-port=2",
    "--reuse-grpc-port=true",
    "--grpc-header-forward-pattern=x-.*",
    "--grpc-infer-thread-count=2",
    "--grpc-infer-allocation-pool-size=8",
    "--grpc-max-response-pool-size=64",
    "--grpc-use-ssl=true",
    "--grpc-use-ssl-mutual=true",
    "--grpc-server-cert=/c",
    "--grpc-server-key=/k",
    "--grpc-root-cert=/r",
    "--grpc-infer-response-compression-level=low",
    "--grpc-keepalive-time=1000",
    "--grpc-keepalive-timeout=1000",
    "--grpc-keepalive-permit-without-calls=true",
    "--grpc-http2-max-pings-without-data=2",
    "--grpc-http2-min-recv-ping-interval-without-data=300000",
    "--grpc-http2-max-ping-strikes=2",
    "--grpc-max-connection-age=1000",
    "--grpc-max-connection-age-grace=1000",
    "--grpc-restricted-protocol=inference:k=v",
    "--log-verbose=1",
    "--log-info=true",
    "--log-warning=true",
    "--log-error=true",
    "--log-format=ISO8601",
    "--log-file=/l",
    "--allow-sagemaker=true",
    "--sagemaker-port=8080",
    "--sagemaker-safe-port-range=8080-8090",
    "--sagemaker-thread-count=8",
    "--allow-vertex-ai=true",
    "--vertex-ai-port=8080",
    "--vertex-ai-thread-count=8",
    "--vertex-ai-default-model=m",
    "--allow-metrics=true",
    "--allow-gpu-metrics=true",
    "--allow-cpu-metrics=true",
    "--metrics-address=127.0.0.1",
    "--metrics-port=3",
    "--metrics-interval-ms=2000",
    "--metrics-config=summary_latencies=true",
    "--trace-config=triton,file=/t",
    "--cache-config=local,size=1000000",
    "--cache-directory=/d",
    "--rate-limit=execution_count",
    "--rate-limit-resource=r:1:0",
    "--pinned-memory-pool-byte-size=0",
    "--cuda-memory-pool-byte-size=0:0",
    "--cuda-virtual-address-size=0:0",
    "--min-supported-compute-capability=6.0",
    "--buffer-manager-thread-count=2",
    "--host-policy=gpu_0,numa-node=0",
    "--model-load-gpu-limit=0:0.5",
    "--allow-client-shm=true",
    "--backend-directory=/x",
    "--backend-config=onnxruntime,default-max-batch-size=4",
    "--repoagent-directory=/y",
    "--strict-model-config=false",
    "--response-cache-byte-size=100",
    "--trace-file=/t",
    "--trace-level=TIMESTAMPS",
    "--trace-rate=10",
    "--trace-count=10",
    "--trace-log-frequency=1",
];

#[test]
fn every_flag_of_tritonserver_is_parsed() {
    let flags = serve(UPSTREAM).unwrap();
    assert_eq!(flags.model_repository, [std::path::Path::new("/a"), std::path::Path::new("/b")]);
    let refused: Vec<_> = flags.findings.iter().filter(|one| one.refused).map(|one| &one.flag[2..]).collect();
    assert_eq!(refused, ["allow-sagemaker", "allow-vertex-ai"]);
    let names: Vec<_> = UPSTREAM
        .iter()
        .filter_map(|flag| flag.split('=').next()?.strip_prefix("--"))
        .map(|name| if name == "model-store" { "model-repository" } else { name })
        .collect();
    let own = [
        "backend-cache",
        "backend-fallback",
        "use-cuda-graph",
        "allow-model-backends",
        "model-name",
        "load-format",
        "print-config",
        "endpoint-file",
        "drain-delay",
    ];
    for flag in table::flags() {
        assert!(names.contains(&flag.name) || own.contains(&flag.name), "--{} is nobody's", flag.name);
    }
}

#[test]
fn the_flags_of_the_upstream_charts() {
    // deploy/gke-marketplace-app
    let flags = serve(&[
        "--model-store=gs://x",
        "--strict-model-config=False",
        "--log-verbose=0",
        "--allow-gpu-metrics=True",
    ]);
    let flags = flags.unwrap();
    assert!(!flags.disable_auto_complete_config && flags.findings.iter().all(|finding| !finding.refused));
    // deploy/aws, deploy/oci
    let flags = given(&["--model-control-mode=poll", "--repository-poll-secs=5"]);
    assert_eq!((flags.model_control_mode, flags.repository_poll_secs), (ControlModeFlag::Poll, 5));
}

#[test]
fn a_flag_is_spoken_of_once_and_only_where_it_would_change_something() {
    let said = |arguments: &[&str]| {
        let findings = given(arguments).findings;
        findings.iter().map(|one| (one.flag[2..].to_owned(), one.refused)).collect::<Vec<_>>()
    };
    let quiet =
        ["--grpc-use-ssl=off", "--rate-limit=OFF", "--allow-vertex-ai", "0", "--trace-config=level=OFF"];
    assert_eq!(said(&quiet), []);
    assert_eq!(
        said(&["--trace-config=rate=1", "--trace-config=count=2"]),
        [("trace-config".to_owned(), false)]
    );
    assert_eq!(said(&["--model-namespacing=on"]), [("model-namespacing".to_owned(), true)]);
}

#[test]
fn values_come_with_or_without_an_equals_sign_and_the_last_one_counts() {
    let flags = given(&["--http-port", "1", "--http-port=2", "--strict-readi=false", "--log-verbose"]);
    assert_eq!((flags.http_port, flags.strict_readiness, flags.log_verbose), (2, false, 1));
}

#[test]
fn an_empty_value_counts_as_not_given() {
    let empty =
        ["--log-file=", "--metrics-address=", "--http-header-forward-pattern=", "--grpc-server-cert="];
    let flags = given(&[&empty[..], &["--model-repository=", "--load-model="]].concat());
    assert_eq!((flags.log_file, flags.metrics_address, flags.load_model.len()), (None, None, 0));
    assert_eq!((flags.model_repository.len(), flags.findings), (1, vec![]));
    assert!(flags.http_header_forward_pattern.is_none());
}

#[test]
fn what_is_wrong_is_said() {
    let refusal = |arguments: &[&str]| serve(&[&["--model-repository=/m"], arguments].concat()).unwrap_err();
    assert!(refusal(&["--no-such-flag"]).contains("--no-such-flag"));
    assert!(refusal(&["--http-port=70000"]).contains("expected a whole number from 0 to 65535"));
    assert!(refusal(&["--grpc-infer-thread-count=1"]).contains("from 2 to 128"));
    assert!(refusal(&["--http-restricted-api=health"]).contains("API[,API…]:KEY=VALUE"));
    assert!(refusal(&["--model-control-mode=sometimes"]).contains("none or poll or explicit"));
    assert!(serve(&[]).unwrap_err().contains("--model-repository"));
}

#[test]
fn the_short_help_is_about_what_works() {
    let mut command = command::command();
    let serve = command.find_subcommand_mut("serve").unwrap();
    let (short, long) = (serve.render_help().to_string(), serve.render_long_help().to_string());
    assert!(short.contains("--http-restricted-api") && !short.contains("--model-namespacing"));
    assert!(long.contains("--model-namespacing <BOOL>") && long.contains("Refused: model namespacing"));
}
