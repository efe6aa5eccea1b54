//! `trireme chat MODEL`: a conversation in the terminal.
//!
//! MODEL is a model of a running server, or a checkpoint, which is then served by this process for itself.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use trireme_drain::Stage;
use trireme_http::{Client, HttpOptions, Reply};
use trireme_runtime::{Core, LogLevel};
use trireme_telemetry::{LogOptions, MetricOptions, Registry};

use crate::checkpoint::{CheckpointRepository, checkpoint_backend};
use crate::cli::{Chat, Command};
use crate::settings::{backend_directory, core_options};

const HELP: &str = "/reset begins anew, /exit or Ctrl-D ends, Ctrl-C stops an answer.\n";

/// Holds a conversation; 1 if there is nobody to hold it with.
#[expect(clippy::print_stderr, reason = "the person at the terminal reads it")]
pub fn chat(flags: &Chat) -> ExitCode {
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(flags: &Chat) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("chat")
        .enable_all()
        .build()
        .context("no threads to speak on")?;
    let path = Path::new(&flags.model);
    let result = if flags.url.is_none() && path.exists() {
        let own = Own::load(path, flags)?;
        let result = runtime.block_on(own.talk(flags));
        own.core.finish_drain(std::time::Duration::from_secs(5));
        result
    } else {
        let url = flags.url.as_deref().unwrap_or("http://localhost:8000");
        runtime.block_on(async {
            let client = Client::new(url, flags.key.as_deref())?;
            talk(&client, &flags.model, flags).await.with_context(|| match flags.url {
                Some(_) => format!("the server at {url}"),
                None => format!(
                    "'{}' is no file or directory, so a server at {url} was asked (--url names another)",
                    flags.model
                ),
            })
        })
    };
    runtime.shutdown_background();
    result
}

/// A checkpoint that is served for this conversation only.
struct Own {
    core: Arc<Core>,
    repository: CheckpointRepository,
}

impl Own {
    fn load(path: &Path, flags: &Chat) -> anyhow::Result<Self> {
        let log = LogOptions { info: false, ..LogOptions::default() };
        trireme_telemetry::init_logging(&log).context("the log")?;
        let backends = backend_directory(flags.backend_directory.as_deref())?;
        let (backend, stand_in) = checkpoint_backend(&backends);
        let repository = CheckpointRepository::of(path, None, backend)?;
        let registry: &'static Registry =
            Box::leak(Box::new(Registry::with_options(MetricOptions::default())));
        let mut arguments = vec!["trireme".into(), "serve".into(), repository.path().into_os_string()];
        if let Some(backends) = &flags.backend_directory {
            arguments.extend(["--backend-directory".into(), backends.clone().into_os_string()]);
        }
        let Command::Serve(mut serve) = crate::cli::parse(arguments)? else {
            bail!("no server can be started")
        };
        serve.model_repository = vec![repository.path()];
        serve.backend_fallback.extend(stand_in.map(|(from, to)| format!("{from}={to}")));
        let core = Core::start(core_options(&serve)?, registry, LogLevel::WARN)
            .map_err(|error| anyhow::anyhow!(error.message))?;
        if !core.startup_ok() {
            let reasons: Vec<String> = core.index(false).into_iter().map(|entry| entry.reason).collect();
            bail!("'{}' cannot be served: {}", path.display(), reasons.join("\n"));
        }
        Ok(Self { core, repository })
    }

    async fn talk(&self, flags: &Chat) -> anyhow::Result<()> {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.context("no port for the conversation")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, told) = watch::channel(Stage::default());
        let server =
            tokio::spawn(trireme_http::serve(Arc::clone(&self.core), listener, HttpOptions::default(), told));
        let result = talk(&Client::new(&url, None)?, &self.repository.name, flags).await;
        let _ = stop.send(Stage::Closed);
        server.abort();
        result
    }
}

/// Reads lines, sends the conversation, prints the answers.
async fn talk(client: &Client, model: &str, flags: &Chat) -> anyhow::Result<()> {
    check_model(client, model).await?;
    let person = std::io::stdin().is_terminal();
    let begin: Vec<Value> =
        flags.system.iter().map(|system| json!({ "role": "system", "content": system })).collect();
    let mut messages = begin.clone();
    let mut lines = lines();
    if person {
        out(&format!("{model}. {HELP}"));
    }
    loop {
        if person {
            out("\n> ");
        }
        let Some(line) = lines.recv().await else { break };
        match line.trim() {
            "" => continue,
            "/exit" | "/quit" => break,
            "/reset" => messages.clone_from(&begin),
            "/help" => out(HELP),
            text => {
                messages.push(json!({ "role": "user", "content": text }));
                match answer(client, model, &messages, flags).await? {
                    Some(text) => messages.push(json!({ "role": "assistant", "content": text })),
                    // What was refused is not asked again with the next line.
                    None => drop(messages.pop()),
                }
            }
        }
    }
    if person {
        out("\n");
    }
    Ok(())
}

async fn check_model(client: &Client, model: &str) -> anyhow::Result<()> {
    let path = format!("/v1/models/{}", model.replace('%', "%25").replace(' ', "%20"));
    let reply = client.call(&path, None).await?;
    if reply.status != 200 {
        bail!("{}", error_text(&reply.text().await?));
    }
    Ok(())
}

/// Prints an answer as it comes. `None` if there is none; Ctrl-C keeps what has come.
#[expect(clippy::print_stderr, reason = "the person at the terminal reads it")]
async fn answer(
    client: &Client,
    model: &str,
    messages: &[Value],
    flags: &Chat,
) -> anyhow::Result<Option<String>> {
    let mut body = json!({ "model": model, "messages": messages, "stream": true });
    let settings = [
        ("temperature", flags.temperature.map(Value::from)),
        ("max_completion_tokens", flags.max_tokens.map(Value::from)),
        ("seed", flags.seed.map(Value::from)),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let mut reply = client.call("/v1/chat/completions", Some(body.to_string())).await?;
    if reply.status != 200 {
        eprintln!("error: {}", error_text(&reply.text().await?));
        return Ok(None);
    }
    let mut text = String::new();
    loop {
        let event = tokio::select! {
            event = next(&mut reply) => event?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(event) = event else { break };
        if event.get("error").is_some() {
            eprintln!("\nerror: {}", error_text(&event.to_string()));
            return Ok(None);
        }
        if let Some(piece) = event["choices"][0]["delta"]["content"].as_str() {
            out(piece);
            text.push_str(piece);
        }
    }
    out("\n");
    Ok(Some(text))
}

async fn next(reply: &mut Reply) -> anyhow::Result<Option<Value>> {
    let event = reply.event().await?.filter(|event| event != "[DONE]");
    event
        .map(|event| serde_json::from_str(&event).context("the server sent an event that is no JSON"))
        .transpose()
}

fn error_text(body: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    let message = parsed.as_ref().and_then(|value| value["error"]["message"].as_str());
    message.unwrap_or(body).to_owned()
}

/// The lines that the person types; a thread of its own waits for them, as nothing else can.
fn lines() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if send.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

#[expect(clippy::print_stdout, reason = "the conversation is the program's output")]
fn out(text: &str) {
    print!("{text}");
    let _ = std::io::stdout().flush();
}
