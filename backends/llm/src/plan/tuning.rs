//! The file of a tuning table: what an engine has timed on a device, so that it need not be timed again.
//!
//! ```text
//! trireme-tuning 1 <sha256 of the rest, in hexadecimal>
//! {"device": "NVIDIA H200", ...}
//! ```
//! The second part is the engine's; of it only the device's name is known here, by which a plan keeps tables apart.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::read::hex;

const MAGIC: &str = "trireme-tuning 1 ";

/// Largest file of a table.
pub const MAX_TUNING_BYTES: usize = 1 << 20;

/// Why a table cannot be used; whoever read it names the file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TuningError {
    #[error("is no tuning table: it does not begin with 'trireme-tuning 1'")]
    Foreign,
    #[error("is damaged: its checksum does not match")]
    Checksum,
    #[error("has {0} bytes, the limit is {MAX_TUNING_BYTES}")]
    TooLong(usize),
    #[error("names no device: {0}")]
    NoDevice(String),
}

/// The file of an engine's table.
pub fn seal_tuning(body: &str) -> Vec<u8> {
    let sum = hex(&Sha256::digest(body.as_bytes()));
    format!("{MAGIC}{sum}\n{body}").into_bytes()
}

/// The engine's part of a file, whole and as it was written.
///
/// # Errors
/// It is something else, too long, or damaged.
pub fn open_tuning(file: &[u8]) -> Result<&[u8], TuningError> {
    if file.len() > MAX_TUNING_BYTES {
        return Err(TuningError::TooLong(file.len()));
    }
    let rest = file.strip_prefix(MAGIC.as_bytes()).ok_or(TuningError::Foreign)?;
    let (sum, body) = rest.split_at_checked(64).ok_or(TuningError::Checksum)?;
    let body = body.strip_prefix(b"\n").ok_or(TuningError::Checksum)?;
    if hex(&Sha256::digest(body)).as_bytes() == sum { Ok(body) } else { Err(TuningError::Checksum) }
}

/// The device of a table's file.
///
/// # Errors
/// As [`open_tuning`], or no device is named.
pub fn tuning_device(file: &[u8]) -> Result<String, TuningError> {
    #[derive(Deserialize)]
    struct Head {
        device: String,
    }
    let head: Head =
        serde_json::from_slice(open_tuning(file)?).map_err(|e| TuningError::NoDevice(e.to_string()))?;
    Ok(head.device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_whole_or_refused() {
        let body = r#"{"device":"H200","ways":[]}"#;
        let file = seal_tuning(body);
        assert_eq!(open_tuning(&file), Ok(body.as_bytes()));
        assert_eq!(tuning_device(&file).as_deref(), Ok("H200"));
        for at in 0..file.len() {
            let mut other = file.clone();
            other[at] ^= 1;
            assert!(open_tuning(&other).is_err(), "byte {at} changed");
            assert!(open_tuning(&file[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(
            open_tuning(&vec![0; MAX_TUNING_BYTES + 1]),
            Err(TuningError::TooLong(MAX_TUNING_BYTES + 1))
        );
        assert_eq!(open_tuning(b"TRIREMEP"), Err(TuningError::Foreign));
        assert!(tuning_device(&seal_tuning("{}")).unwrap_err().to_string().contains("names no device"));
    }
}
