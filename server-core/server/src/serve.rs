//! `trireme serve`: start, serve, drain.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;
use trireme_drain::{Debts, Stage};
use trireme_grpc::GrpcOptions;
use trireme_http::HttpOptions;
use trireme_runtime::{ControlMode, Core, LogLevel};
use trireme_telemetry::{LogFormat, LogHandle, LogOptions, Registry};

use crate::checkpoint::{CheckpointRepository, checkpoint_backend};
use crate::cli::{LogFormatFlag, Serve};
use crate::endpoint_file::{EndpointFile, Endpoints};
use crate::leave::{EXIT_DEVICE_LOST, Running, Times, leave};
use crate::report;
use crate::settings::{backend_directory, core_options, metric_options, restrictions, tls};
use crate::signals::{End, Signals};

/// A model that cannot be loaded, a port that is taken, a flag's value.
const EXIT_START_FAILED: u8 = 1;

/// Runs the server until it is told to stop.
#[expect(clippy::print_stderr, reason = "the person at the terminal reads it")]
pub fn serve(flags: &Serve) -> ExitCode {
    match run(flags) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_START_FAILED)
        }
    }
}

/// What both front ends are set up with.
struct FrontEnds {
    http: HttpOptions,
    grpc: GrpcOptions,
    threads: usize,
}

/// The sockets are bound before the models load, so that a port in use is found at once; they are listened on after.
struct Listeners {
    http: Option<TcpListener>,
    grpc: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

#[expect(clippy::print_stderr, reason = "the person at the terminal reads it")]
fn run(flags: &Serve) -> anyhow::Result<ExitCode> {
    let (log, level) = start_log(flags)?;
    refuse_or_warn(flags)?;
    let checkpoint = checkpoint(flags)?;
    let mut options = core_options(flags)?;
    if flags.checkpoint.is_some()
        && let (_, Some((from, to))) = checkpoint_backend(&options.backend_directory)
    {
        options.backend_fallback.entry(from.to_owned()).or_insert_with(|| to.to_owned());
    }
    if let Some(checkpoint) = &checkpoint {
        options.repositories = vec![checkpoint.path()];
    }
    let exit_timeout = options.exit_timeout;
    let front_ends = front_ends(flags, &log)?;
    if options.control_mode == ControlMode::Explicit {
        warn_open_control(flags);
    }
    let reserved = if flags.print_config { None } else { Some(reserve(flags)?) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("io")
        .enable_all()
        .build()
        .context("no threads for the front ends")?;
    let signals = runtime.block_on(async { Signals::listen() }).context("no signals")?;
    let registry: &'static Registry = Box::leak(Box::new(Registry::with_options(metric_options(flags)?)));
    let core = Core::start(options, registry, level).map_err(|error| anyhow::anyhow!(error.message))?;
    let Some(reserved) = reserved else { return print_config(&core, checkpoint.as_ref(), exit_timeout) };
    let models = core.index(false);
    print_out(&report::table(&models));
    if flags.exit_on_error && !core.startup_ok() {
        eprintln!("error: failed to load all models; with --exit-on-error=false the others would be served");
        core.finish_drain(exit_timeout);
        // The models are not to blame, and another process may do better.
        let lost = core.device_fault().is_some();
        return Ok(ExitCode::from(if lost { EXIT_DEVICE_LOST } else { EXIT_START_FAILED }));
    }
    if let Some(config) = checkpoint.as_ref().and_then(|checkpoint| derived(&core, &checkpoint.name)) {
        print_out(&report::config(&config));
    }
    let listeners = reserved.listen()?;
    let endpoint_file = flags
        .endpoint_file
        .as_deref()
        .map(|path| EndpointFile::write(path, &listeners.endpoints()))
        .transpose()?;
    let times = Times { delay: Duration::from_secs(flags.drain_delay), timeout: exit_timeout };
    let serving = serve_until_signal(&core, listeners, front_ends, endpoint_file, times, signals);
    let code = runtime.block_on(serving)?;
    runtime.shutdown_background();
    Ok(code)
}

/// The `--load-format` that looks at the checkpoint's files.
const AS_IT_IS: &str = "auto";

/// The checkpoint that is served in the place of a repository, if one is.
fn checkpoint(flags: &Serve) -> anyhow::Result<Option<CheckpointRepository>> {
    let Some(path) = &flags.checkpoint else {
        let stray = flags.model_name.is_some().then_some("--model-name");
        let stray = stray.or((flags.load_format != AS_IT_IS).then_some("--load-format"));
        match stray.or(flags.print_config.then_some("--print-config")) {
            Some(flag) => bail!("{flag} needs a checkpoint: trireme serve CHECKPOINT {flag}"),
            None => return Ok(None),
        }
    };
    let backends = backend_directory(flags.backend_directory.as_deref())?;
    let (backend, _) = checkpoint_backend(&backends);
    let repository = CheckpointRepository::of(path, flags.model_name.as_deref(), backend)?;
    if flags.load_format != AS_IT_IS {
        repository.set("load_format", &flags.load_format)?;
    }
    Ok(Some(repository))
}

/// The configuration that a backend has completed.
fn derived(core: &Core, name: &str) -> Option<String> {
    let model = core.model(name, None).ok()?;
    Some(trireme_model_config::to_pbtxt(&model.config().proto))
}

/// Ends with the configuration on standard output, or with why there is none.
fn print_config(
    core: &Arc<Core>,
    checkpoint: Option<&CheckpointRepository>,
    exit_timeout: Duration,
) -> anyhow::Result<ExitCode> {
    let name = checkpoint.map(|checkpoint| checkpoint.name.as_str()).unwrap_or_default();
    let config = derived(core, name);
    let reason = core.index(false).into_iter().map(|entry| entry.reason).collect::<Vec<_>>().join("\n");
    core.finish_drain(exit_timeout);
    print_out(&config.with_context(|| format!("the checkpoint cannot be served: {reason}"))?);
    Ok(ExitCode::SUCCESS)
}

/// More threads than this only wait for each other.
const MAX_THREADS: usize = 256;
/// Metadata of gRPC that opens a restricted call has this before its key.
const GRPC_SECRET: &str = "triton-grpc-protocol-";

fn front_ends(flags: &Serve, log: &LogHandle) -> anyhow::Result<FrontEnds> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let http = HttpOptions {
        log: log.clone(),
        restrictions: restrictions("--http-restricted-api", &flags.http_restricted_api, "", "api")?,
        forward: flags.http_header_forward_pattern.clone(),
        ..HttpOptions::default()
    };
    let protocols = &flags.grpc_restricted_protocol;
    let grpc = GrpcOptions {
        log: log.clone(),
        tls: tls(flags)?,
        restrictions: restrictions("--grpc-restricted-protocol", protocols, GRPC_SECRET, "protocol")?,
        forward: flags.grpc_header_forward_pattern.clone(),
        compress: flags.grpc_compress_answers,
        keepalive_time: Duration::from_millis(flags.grpc_keepalive_time),
        keepalive_timeout: Duration::from_millis(flags.grpc_keepalive_timeout),
        max_connection_age: flags.grpc_max_connection_age.map(Duration::from_millis),
        max_connection_age_grace: flags.grpc_max_connection_age_grace.map(Duration::from_millis),
        ..GrpcOptions::default()
    };
    Ok(FrontEnds {
        http,
        grpc,
        threads: flags.http_thread_count.unwrap_or_else(|| cores.min(8)).min(MAX_THREADS),
    })
}

fn start_log(flags: &Serve) -> anyhow::Result<(LogHandle, LogLevel)> {
    let format = match flags.log_format {
        LogFormatFlag::Default => LogFormat::Default,
        LogFormatFlag::Iso8601 => LogFormat::Iso8601,
        LogFormatFlag::Json => LogFormat::Json,
    };
    let options = LogOptions {
        verbose: flags.log_verbose,
        info: flags.log_info,
        warning: flags.log_warning,
        error: flags.log_error,
        format,
        file: flags.log_file.clone(),
    };
    let log = trireme_telemetry::init_logging(&options).context("--log-file")?;
    let level = if flags.log_verbose > 0 { LogLevel::VERBOSE } else { LogLevel::INFO };
    Ok((log, level))
}

fn refuse_or_warn(flags: &Serve) -> anyhow::Result<()> {
    for finding in &flags.findings {
        if finding.refused {
            bail!("{} cannot be given: {}", finding.flag, finding.why);
        }
        tracing::warn!("{} has no effect: {}", finding.flag, finding.why);
    }
    if trireme_host::check::asked_for().map_err(anyhow::Error::msg)? {
        tracing::warn!(
            "each call of a backend is checked ({}=1): broken rules are logged by name, and all is slower",
            trireme_host::check::VARIABLE
        );
    }
    Ok(())
}

/// Whoever reaches the port can load models: say so when that is more than this machine.
fn warn_open_control(flags: &Serve) {
    for (on, address) in [(flags.allow_http, &flags.http_address), (flags.allow_grpc, &flags.grpc_address)] {
        let loopback =
            address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) || address == "localhost";
        if on && !loopback {
            tracing::warn!(
                "load and unload are open to everybody who reaches {address}: bind 127.0.0.1 or put a proxy in front"
            );
        }
    }
}

/// Sockets that hold their ports but do not accept yet: until the models are loaded, connections are refused.
struct Reserved {
    http: Option<(socket2::Socket, &'static str)>,
    grpc: Option<(socket2::Socket, &'static str)>,
    metrics: Option<(socket2::Socket, &'static str)>,
}

fn reserve(flags: &Serve) -> anyhow::Result<Reserved> {
    let metrics_address = flags.metrics_address.as_ref().unwrap_or(&flags.http_address);
    let one = |on: bool, address: &str, port: u16, share: bool, flag: &'static str| -> anyhow::Result<_> {
        if !on {
            return Ok(None);
        }
        let address = resolve(address, port).with_context(|| format!("{flag}: address '{address}'"))?;
        let bind = || -> std::io::Result<socket2::Socket> {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(share)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        match bind() {
            Ok(socket) => Ok(Some((socket, flag))),
            Err(error) => bail!("cannot listen on {address}: {error}; free the port or give another {flag}"),
        }
    };
    Ok(Reserved {
        http: one(
            flags.allow_http,
            &flags.http_address,
            flags.http_port,
            flags.reuse_http_port,
            "--http-port",
        )?,
        grpc: one(
            flags.allow_grpc,
            &flags.grpc_address,
            flags.grpc_port,
            flags.reuse_grpc_port,
            "--grpc-port",
        )?,
        metrics: one(flags.allow_metrics, metrics_address, flags.metrics_port, false, "--metrics-port")?,
    })
}

fn resolve(address: &str, port: u16) -> anyhow::Result<SocketAddr> {
    (address, port).to_socket_addrs()?.next().context("the name has no address")
}

impl Reserved {
    fn listen(self) -> anyhow::Result<Listeners> {
        let one = |reserved: Option<(socket2::Socket, &'static str)>| -> anyhow::Result<Option<TcpListener>> {
            let Some((socket, flag)) = reserved else { return Ok(None) };
            let address = socket.local_addr().ok().and_then(|address| address.as_socket());
            socket.listen(1024).with_context(|| match address {
                Some(address) => format!("cannot listen on {address}; free the port or give another {flag}"),
                None => flag.to_owned(),
            })?;
            socket.set_nonblocking(true)?;
            Ok(Some(socket.into()))
        };
        Ok(Listeners { http: one(self.http)?, grpc: one(self.grpc)?, metrics: one(self.metrics)? })
    }
}

impl Listeners {
    fn endpoints(&self) -> Endpoints {
        let address = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        Endpoints { http: address(&self.http), grpc: address(&self.grpc), metrics: address(&self.metrics) }
    }
}

/// Opens the front ends and returns when they have ended and all instances are gone.
async fn serve_until_signal(
    core: &Arc<Core>,
    listeners: Listeners,
    front_ends: FrontEnds,
    endpoint_file: Option<EndpointFile>,
    times: Times,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let FrontEnds { http, grpc, threads } = front_ends;
    let io = crate::io_threads::IoThreads::start(threads)?;
    let (stop, told) = watch::channel(Stage::default());
    let mut tasks = tokio::task::JoinSet::new();
    let debts = Debts::default();
    let http = HttpOptions { threads: io.handles(), debts: debts.clone(), ..http };
    let grpc = GrpcOptions { threads: io.handles(), debts: debts.clone(), ..grpc };
    let mut ports = Vec::new();
    let mut lines = String::new();
    let mut base = None;
    if let Some(listener) = listeners.http {
        let address = listener.local_addr()?;
        ports.push(address.port());
        lines.push_str(&format!("HTTP     http://{address}\n"));
        base = Some(format!("http://{}", reachable(address)));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.spawn(trireme_http::serve(Arc::clone(core), listener, http, told.clone()));
    }
    if let Some(listener) = listeners.grpc {
        let address = listener.local_addr()?;
        ports.push(address.port());
        lines.push_str(&format!("gRPC     {address}\n"));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.spawn(trireme_grpc::serve(Arc::clone(core), listener, grpc, told.clone()));
    }
    if let Some(listener) = listeners.metrics {
        lines.push_str(&format!("metrics  http://{}/metrics\n", listener.local_addr()?));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.spawn(trireme_http::serve_metrics(Arc::clone(core), listener, debts.clone(), told.clone()));
    }
    if let Some(base) = base
        && let openai = core.openai_models()
        && let Some(line) = report::try_line(&core.index(true), &base, &openai, |name| core.takes_text(name))
    {
        if !openai.is_empty() {
            lines.push_str(&format!("OpenAI   {base}/v1\n"));
        }
        lines.push_str(&format!("try      {line}\n"));
    }
    print_out(&lines);
    signals.serving();
    let end = tokio::select! {
        end = signals.next() => end,
        _ = core.device_lost() => End::DeviceLost,
        Some(ended) = tasks.join_next() => {
            // A front end ends by itself only when it fails.
            ended.context("a front end")?.context("a front end")?;
            bail!("a front end ended");
        }
    };
    drop(endpoint_file);
    let running = Running { core, debts, ports, tasks, stop };
    Ok(leave(running, end, times, &mut signals).await)
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let loopback: std::net::IpAddr = match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, address.port())
}

/// What belongs to the person at the terminal goes to standard output; the log goes to standard error.
#[expect(clippy::print_stdout, reason = "the start table and the addresses are the program's output")]
fn print_out(text: &str) {
    use std::io::Write;
    print!("{text}");
    let _ = std::io::stdout().flush();
}
