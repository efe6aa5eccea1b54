//! What a configuration says of sizes.

use std::collections::BTreeSet;

use serde_json::Value;
use trireme_sdk::{Config, Error, Result};

use crate::params::Parameters;
use crate::profile::ProfileSet;

/// What an executor is to be made for. What is `None` is left to the executor.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Sequences at a time: `max_batch_size` of the configuration.
    pub max_batch_size: Option<usize>,
    /// Rows of a step: parameter `max_num_tokens`.
    pub max_num_tokens: Option<usize>,
    /// Positions of a sequence: parameter `max_context`, at most what the model was trained for.
    pub max_context: Option<usize>,
    /// Positions of all sequences together, at most: parameter `max_tokens_in_paged_kv_cache`.
    pub kv_tokens: Option<usize>,
    /// Share of the memory that is free after loading which keys and values may take at most: parameter
    /// `kv_cache_free_gpu_mem_fraction`. Over 0 and at most 1.
    pub kv_fraction: Option<f64>,
    /// The shapes that steps may have: parameters `profile.<n>.…`.
    pub profiles: ProfileSet,
}

impl Sizes {
    /// Reads them for a model that was trained for `trained` positions.
    ///
    /// # Errors
    /// INVALID_ARG that names the parameter.
    pub fn read(config: &Config, params: &Parameters, trained: usize) -> Result<Self> {
        Self::of_json(config.json(), params, trained)
    }

    /// The same of a configuration as JSON, which may leave out anything.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of_json(config: &Value, params: &Parameters, trained: usize) -> Result<Self> {
        let max_context = params.count("max_context");
        if let Some(n) = max_context.filter(|n| *n > trained) {
            return Err(Error::invalid(format!(
                "parameter 'max_context' is {n}, the model was trained for at most {trained}"
            )));
        }
        let batch = config["max_batch_size"].as_u64().and_then(|n| usize::try_from(n).ok());
        let max_batch_size = batch.filter(|n| *n > 0);
        let profiles =
            params.profiles_named(&named(config)?).map_err(|error| Error::invalid(error.to_string()))?;
        // Before anything is loaded, and for tools that start no engine.
        profiles
            .check_batch(max_batch_size.unwrap_or(0))
            .map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Self {
            max_batch_size,
            max_num_tokens: params.count("max_num_tokens"),
            max_context,
            kv_tokens: params.count("max_tokens_in_paged_kv_cache"),
            kv_fraction: params.fraction("kv_cache_free_gpu_mem_fraction"),
            profiles,
        })
    }
}

/// The profiles that instance groups name. The groups share an engine, so they must name the same.
fn named(config: &Value) -> Result<BTreeSet<String>> {
    let mut found: Option<BTreeSet<String>> = None;
    for group in config["instance_group"].as_array().into_iter().flatten() {
        let names = group["profile"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        if found.as_ref().is_some_and(|before| *before != names) {
            return Err(Error::invalid(
                "the instance groups name different profiles, but share an engine: name the same in all of them",
            ));
        }
        found = Some(names);
    }
    Ok(found.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Sizes, named};
    use crate::params::{PARAMETERS, Parameters};
    use serde_json::json;

    #[test]
    fn a_batch_that_no_profile_takes_is_refused() {
        let given = ["tokens", "batch"].iter().flat_map(|axis| {
            ["min", "opt", "max"]
                .map(|end| (format!("profile.0.{axis}.{end}"), if end == "max" { "16" } else { "1" }))
        });
        let given: Vec<_> = given.collect();
        let params =
            Parameters::read(&[PARAMETERS], given.iter().map(|(name, value)| (name.as_str(), *value)))
                .unwrap();
        let of = |batch| {
            Sizes::of_json(&json!({ "max_batch_size": batch }), &params, 64).map(|sizes| sizes.max_batch_size)
        };
        assert_eq!(of(16).unwrap(), Some(16));
        assert_eq!(of(0).unwrap(), None);
        let error = of(17).unwrap_err().to_string();
        assert!(error.contains("max_batch_size is 17, the shape profiles allow at most 16"), "{error}");
    }

    #[test]
    fn groups_name_the_same_profiles() {
        let of = |groups| named(&json!({ "instance_group": groups }));
        assert!(of(json!([{}, {}])).unwrap().is_empty());
        let names = of(json!([{"profile": ["1"]}, {"profile": ["1"]}])).unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["1"]);
        assert!(
            of(json!([{"profile": ["1"]}, {"profile": []}])).unwrap_err().to_string().contains("different")
        );
    }
}
