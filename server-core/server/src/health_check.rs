//! `trireme healthcheck`: one question to a running server, for probes that run a program.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use trireme_http::Client;

use crate::cli::HealthCheck;

/// 0 if the answer is yes; otherwise 1, and why on standard error.
#[expect(clippy::print_stderr, reason = "a probe's log shows it")]
pub fn health_check(flags: &HealthCheck) -> ExitCode {
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(flags: &HealthCheck) -> anyhow::Result<()> {
    let client = Client::new(&flags.url, None)?;
    let (path, what) = question(flags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let timeout = Duration::from_secs(flags.timeout.into());
    let reply = runtime.block_on(async { tokio::time::timeout(timeout, client.call(&path, None)).await });
    let reply =
        reply.with_context(|| format!("no answer from {} within {} s", flags.url, flags.timeout))??;
    if reply.status != 200 {
        bail!("{what} (status {} of {path})", reply.status);
    }
    Ok(())
}

/// The path to ask, and what it means if the answer is no.
fn question(flags: &HealthCheck) -> anyhow::Result<(String, String)> {
    Ok(match &flags.model {
        Some(model) => {
            if !model.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
                bail!("'{model}' is no model's name: letters, digits, _, . and - are");
            }
            (format!("/v2/models/{model}/ready"), format!("the model '{model}' is not ready"))
        }
        None if flags.live => ("/v2/health/live".to_owned(), "the server does not live".to_owned()),
        None => ("/v2/health/ready".to_owned(), "the server is not ready".to_owned()),
    })
}
