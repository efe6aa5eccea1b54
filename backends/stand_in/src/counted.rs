//! Numbers in files of the directory `MODEL_LOG_DIR`, by which a suite and its model talk to each other.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::time::Duration;

fn place(kind: &str, what: &str) -> PathBuf {
    let folder = std::env::var_os("MODEL_LOG_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    folder.join(format!("model_init_del_{kind}_{what}.txt"))
}

/// One more of a kind. A file that cannot be written counts nothing, which the suite sees.
pub(crate) fn count(kind: &str) {
    let _ = try_count(kind);
}

fn try_count(kind: &str) -> std::io::Result<()> {
    let options =
        File::options().read(true).write(true).create(true).truncate(false).open(place(kind, "count"));
    let mut file = options?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let number = text.trim().parse::<u64>().unwrap_or_default() + 1;
    file.rewind()?;
    // Not shortened first: the suite may read at any time, and a larger number is not shorter.
    file.write_all(number.to_string().as_bytes())
}

/// How long something takes, in seconds; 0 without a file.
pub(crate) fn delay(kind: &str) -> Duration {
    let seconds = fs::read_to_string(place(kind, "delay")).ok().and_then(|text| text.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or_default())
}
