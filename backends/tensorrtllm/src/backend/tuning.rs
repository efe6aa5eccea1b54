//! What is kept from one load to the next: `--backend-config tensorrtllm,tuning_cache=DIR` and `kernel_cache=DIR`, or `off`.

use std::path::PathBuf;

use serde_json::Value;
use trireme_llm::checkpoint::Checkpoint;
use trireme_sdk::{Error, Result};

use crate::device;
use crate::error::Result as CudaResult;
use crate::tuning::{Origin, Report, Store, default_folder};

/// Folders for what is made at load and would be made again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caches {
    /// Choices of the clock.
    pub(super) tuning: Option<PathBuf>,
    /// Code that NVRTC has made.
    pub(super) kernels: Option<PathBuf>,
}

impl Caches {
    /// The folders that the command line names, the user's own for caches where it names none, no folder for `off`.
    pub(super) fn of_settings(settings: &Value) -> Result<Self> {
        let folder = |name: &str, own: &str| {
            let given = settings["cmdline"].get(name).or_else(|| settings.get(name));
            match given.map(|value| value.as_str().unwrap_or_default()) {
                None => Ok(default_folder(own)),
                Some("off") => Ok(None),
                Some("") => Err(Error::invalid(format!("{name} must be a folder, or 'off' to keep nothing"))),
                Some(folder) => Ok(Some(PathBuf::from(folder))),
            }
        };
        Ok(Self { tuning: folder("tuning_cache", "tuning")?, kernels: folder("kernel_cache", "kernels")? })
    }
}

/// Where a checkpoint's table for this GPU may be.
pub(super) fn store(checkpoint: &Checkpoint, folder: Option<&PathBuf>, gpu: usize) -> CudaResult<Store> {
    let plan = checkpoint.tuning(&device::name(gpu)?).map(<[u8]>::to_vec);
    Ok(Store { plan, folder: folder.cloned() })
}

/// A sentence on what came of it.
pub(super) fn said(report: &Report) -> String {
    let of = match &report.origin {
        Origin::Timed => None,
        Origin::Plan => Some("the plan".to_owned()),
        Origin::PlanAndFile(file) => Some(format!("the plan and of {}", file.display())),
        Origin::File(file) => Some(file.display().to_string()),
    };
    let mut from = match (of, report.timed) {
        (None, timed) => format!("{timed} choices of kernels were timed"),
        (Some(of), 0) => format!("the choices of kernels are those of {of}"),
        (Some(of), timed) => format!("the choices of kernels are those of {of}, {timed} more were timed"),
    };
    if let Some(file) = &report.written {
        from += &format!(" and are kept in {}", file.display());
    }
    match report.left {
        0 => from,
        left => format!("{from}; {left} are those of larger sizes, as there was no time for them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_folder_off_or_the_users_own() {
        let of = |settings: Value| Caches::of_settings(&settings).map_err(|e| e.to_string());
        let own = Caches { tuning: default_folder("tuning"), kernels: default_folder("kernels") };
        assert_eq!(of(json!({})), Ok(own.clone()));
        assert_eq!(
            of(json!({"cmdline": {"tuning_cache": "off"}})),
            Ok(Caches { tuning: None, ..own.clone() })
        );
        let named = json!({"cmdline": {"kernel_cache": "/var/k", "tuning_cache": "/var/t"}});
        assert_eq!(of(named), Ok(Caches { tuning: Some("/var/t".into()), kernels: Some("/var/k".into()) }));
        assert!(
            of(json!({"cmdline": {"kernel_cache": ""}}))
                .unwrap_err()
                .contains("kernel_cache must be a folder")
        );
    }

    #[test]
    fn the_log_says_where_choices_come_from_and_go_to() {
        let report = |origin, timed, written: Option<&str>| {
            said(&Report { origin, timed, written: written.map(PathBuf::from), ..Report::default() })
        };
        let timed = report(Origin::Timed, 40, Some("/c/x.tuning"));
        assert_eq!(timed, "40 choices of kernels were timed and are kept in /c/x.tuning");
        assert_eq!(report(Origin::Plan, 0, None), "the choices of kernels are those of the plan");
        let more = report(Origin::File("/c/x".into()), 2, Some("/c/x"));
        assert_eq!(more, "the choices of kernels are those of /c/x, 2 more were timed and are kept in /c/x");
        let both = report(Origin::PlanAndFile("/c/x".into()), 0, None);
        assert_eq!(both, "the choices of kernels are those of the plan and of /c/x");
        let left = said(&Report { timed: 2, left: 30, ..Report::default() });
        assert_eq!(
            left,
            "2 choices of kernels were timed; 30 are those of larger sizes, as there was no time for them"
        );
    }
}
