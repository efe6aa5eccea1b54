//! Which GPUs a configuration names.

use std::collections::BTreeSet;

use serde_json::Value;
use trireme_sdk::{Error, Result};

/// The GPUs of all instance groups. One that lists none runs on GPU 0.
///
/// # Errors
/// A group asks for the CPU, or for a GPU that is not there.
pub(super) fn of_groups(config: &Value, there: usize) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for group in config["instance_group"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default();
        if group["kind"].as_str() == Some("KIND_CPU") {
            return Err(Error::invalid(format!(
                "instance group '{name}' has kind KIND_CPU, but the backend 'tensorrtllm' runs on GPUs only: use \
                 KIND_GPU, or the backend 'cpu'"
            )));
        }
        let gpus = group["gpus"].as_array().into_iter().flatten().filter_map(Value::as_i64);
        for gpu in gpus {
            match i32::try_from(gpu).ok().filter(|_| usize::try_from(gpu).is_ok_and(|gpu| gpu < there)) {
                Some(gpu) => found.insert(gpu),
                None => {
                    return Err(Error::invalid(format!(
                        "instance group '{name}' lists GPU {gpu}, this machine has {there} (they count from 0)"
                    )));
                }
            };
        }
    }
    if found.is_empty() {
        found.insert(0);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(groups: Value, there: usize) -> std::result::Result<Vec<i32>, String> {
        let config = json!({ "instance_group": groups });
        of_groups(&config, there).map(|gpus| gpus.into_iter().collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_gpus_of_all_groups_each_once() {
        let groups = json!([{"kind": "KIND_GPU", "gpus": [1, 0]}, {"kind": "KIND_GPU", "gpus": [1]}]);
        assert_eq!(of(groups, 2), Ok(vec![0, 1]));
        assert_eq!(of(json!([{"kind": "KIND_GPU", "gpus": []}]), 2), Ok(vec![0]));
        let error = of(json!([{"name": "g", "kind": "KIND_GPU", "gpus": [3]}]), 1).unwrap_err();
        assert!(error.contains("lists GPU 3, this machine has 1"), "{error}");
        let error = of(json!([{"name": "g", "kind": "KIND_CPU", "gpus": []}]), 1).unwrap_err();
        assert!(error.contains("backend 'cpu'"), "{error}");
    }
}
