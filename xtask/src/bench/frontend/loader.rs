//! One run of one loader against one server: wrk for HTTP/1.1, h2load for gRPC.
//!
//! Both send a fixed number of requests. They see the HTTP status only, so a run counts as good when the server's own
//! statistics say that as many inferences succeeded.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cell::{Cell, Protocol};
use super::process_times::cpu_seconds;
use super::servers::Server;
use crate::process;
use crate::stopwatch::pause;
use crate::workspace::Workspace;

pub(crate) struct Loader<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) bodies: &'a Path,
    pub(crate) scratch: &'a Path,
}

/// What one run gave. Latencies in µs as the client saw them, CPU of the server only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_us_per_request: f64,
}

/// What a loader printed.
#[derive(Debug, PartialEq)]
struct Seen {
    requests: u64,
    requests_per_second: f64,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Loader<'_> {
    pub(crate) fn run(&self, server: &Server, cell: Cell, count: u64) -> Result<Measured> {
        let (successes, cpu) = (server.successes(cell.model)?, cpu_seconds(server.pid())?);
        let seen = match cell.protocol {
            Protocol::Http => self.wrk(server, cell, count),
            Protocol::Grpc => self.h2load(server, cell, count),
        }
        .with_context(|| format!("{} against {}", cell.name(), server.name))?;
        let cpu = cpu_seconds(server.pid())? - cpu;
        let answered = match successes {
            None => seen.requests,
            Some(before) => self.confirmed(server, cell, before, &seen)?,
        };
        Ok(Measured {
            requests_per_second: seen.requests_per_second,
            p50_us: seen.p50_us,
            p99_us: seen.p99_us,
            cpu_us_per_request: cpu * 1e6 / answered as f64,
        })
    }

    /// Inferences that the server says succeeded in this run; at least as many as the loader got answers.
    fn confirmed(&self, server: &Server, cell: Cell, before: u64, seen: &Seen) -> Result<u64> {
        // Statistics may be written just after the answer is.
        for _ in 0..20 {
            let answered = server.successes(cell.model)?.unwrap_or(0).saturating_sub(before);
            if answered >= seen.requests {
                return Ok(answered);
            }
            pause(50);
        }
        bail!(
            "{}: {} answered {} requests, but its statistics do not say so",
            cell.name(),
            server.name,
            seen.requests
        )
    }

    fn wrk(&self, server: &Server, cell: Cell, count: u64) -> Result<Seen> {
        let stem = self.bodies.join(format!("http-{}", cell.payload_name()));
        wrk(self.workspace, server, cell.model, &stem, cell.concurrency, count)
    }

    fn h2load(&self, server: &Server, cell: Cell, count: u64) -> Result<Seen> {
        let streams = cell.concurrency.min(8);
        let connections = (cell.concurrency / streams).max(1);
        let log = self.scratch.join("h2load.log");
        // h2load appends.
        if log.exists() {
            fs::remove_file(&log)?;
        }
        let mut h2load = Command::new("h2load");
        h2load.args(["--threads=1", "--window-bits=22", "--connection-window-bits=24"]);
        h2load.args([format!("--clients={connections}"), format!("--max-concurrent-streams={streams}")]);
        h2load.args([format!("--requests={count}"), format!("--log-file={}", log.display())]);
        let body = self.bodies.join(format!("grpc-{}-{}.body", cell.model, cell.payload_name()));
        h2load
            .arg("--data")
            .arg(body)
            .args(["--header=content-type: application/grpc", "--header=te: trailers"]);
        h2load.arg(format!("http://{}/inference.GRPCInferenceService/ModelInfer", server.grpc));
        let printed = process::output(&mut h2load, "h2load")?;
        let log = fs::read_to_string(&log).context("h2load wrote no log")?;
        read_h2load(&printed, &log, count)
    }
}

/// Sends `count` requests with the body in `STEM.body`, and the length of its JSON in `STEM.header`.
fn wrk(
    workspace: &Workspace,
    server: &Server,
    model: &str,
    stem: &Path,
    connections: u32,
    count: u64,
) -> Result<Seen> {
    let file = |end: &str| stem.with_extension(end);
    let header_length = fs::read_to_string(file("header")).context("cannot read the header's length")?;
    let mut wrk = Command::new("wrk");
    // The script stops at the count; the duration only bounds a server that hangs.
    wrk.args(["--threads", "1", "--duration", "300s", "--timeout", "60s", "--latency", "--script"]);
    wrk.arg(workspace.root.join("tests/peers/count.lua"));
    wrk.args(["--connections", &connections.to_string()]);
    wrk.arg(format!("http://{}/v2/models/{model}/infer", server.http));
    wrk.env("BODY", file("body")).env("HEADER_LENGTH", header_length).env("COUNT", count.to_string());
    read_wrk(&process::output(&mut wrk, "wrk")?)
}

/// Requests a second of such a run, by the mean latency: of a few long requests, what wrk needs to start would be a part.
pub(crate) fn http_rate(
    workspace: &Workspace,
    server: &Server,
    model: &str,
    stem: &Path,
    connections: u32,
    count: u64,
) -> Result<f64> {
    let seen = wrk(workspace, server, model, stem, connections, count)?;
    Ok(f64::from(connections) * 1e6 / seen.mean_us)
}

fn read_wrk(text: &str) -> Result<Seen> {
    if let Some(bad) = text.lines().find(|line| line.contains("Non-2xx")) {
        bail!("wrk: {}", bad.trim());
    }
    let first_word =
        |mark: &str| text.lines().find_map(|line| line.trim().strip_prefix(mark)?.split_whitespace().next());
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let seen = (|| {
        Some(Seen {
            requests: requests?,
            requests_per_second: first_word("Requests/sec:")?.parse().ok()?,
            mean_us: microseconds(first_word("Latency")?)?,
            p50_us: microseconds(first_word("50%")?)?,
            p99_us: microseconds(first_word("99%")?)?,
        })
    })();
    seen.with_context(|| format!("wrk printed something else than expected:\n{text}"))
}

/// Reads h2load's rate from its text and the latencies from its log: start in µs, status, latency in µs a line.
fn read_h2load(text: &str, log: &str, count: u64) -> Result<Seen> {
    let mut latencies: Vec<u64> = log
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t').skip(1);
            (fields.next()? == "200").then(|| fields.next()?.parse().ok()).flatten()
        })
        .collect();
    if latencies.len() as u64 != count {
        bail!("h2load: {} of {count} requests were answered with status 200", latencies.len());
    }
    latencies.sort_unstable();
    let rate = text.lines().find(|line| line.starts_with("finished in")).and_then(|line| {
        line.split(", ").find_map(|part| part.strip_suffix(" req/s")).and_then(|rate| rate.parse().ok())
    });
    let percentile =
        |percent: usize| latencies.get((latencies.len() * percent / 100).min(latencies.len() - 1));
    match (rate, percentile(50), percentile(99)) {
        (Some(requests_per_second), Some(p50), Some(p99)) => {
            let mean_us = latencies.iter().sum::<u64>() as f64 / latencies.len() as f64;
            let (p50_us, p99_us) = (*p50 as f64, *p99 as f64);
            Ok(Seen { requests: count, requests_per_second, mean_us, p50_us, p99_us })
        }
        _ => bail!("h2load printed something else than expected:\n{text}"),
    }
}

/// wrk's `313.00us`, `1.27ms`, `2.00s` or `1.50m`.
fn microseconds(text: &str) -> Option<f64> {
    [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)]
        .into_iter()
        .find_map(|(unit, scale)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let text = "  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   513.28us    1.02ms  15.98ms   94.81%\n  \
                    Latency Distribution\n     50%  313.00us\n     75%    1.0ms\n     99%    4.69ms\n  \
                    59949 requests in 495.66ms, 10.46MB read\nRequests/sec: 120948.32\n";
        let seen = Seen {
            requests: 59949,
            requests_per_second: 120948.32,
            mean_us: 513.28,
            p50_us: 313.0,
            p99_us: 4690.0,
        };
        assert_eq!(read_wrk(text).unwrap(), seen);
        assert!(read_wrk(&format!("{text}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(read_wrk("").is_err());
    }

    #[test]
    fn h2load_is_read_and_a_lost_answer_is_seen() {
        let text = "finished in 469.76ms, 42575.11 req/s, 5.88MB/s\n";
        let log = "1\t200\t30\n2\t200\t10\n3\t200\t20\n";
        let seen =
            Seen { requests: 3, requests_per_second: 42575.11, mean_us: 20.0, p50_us: 20.0, p99_us: 30.0 };
        assert_eq!(read_h2load(text, log, 3).unwrap(), seen);
        assert!(read_h2load(text, "1\t200\t30\n2\t503\t10\n", 2).is_err());
        assert!(read_h2load("", "", 0).is_err());
    }
}
