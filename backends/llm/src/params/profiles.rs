//! Shape profiles as parameters: `profile.<n>.tokens.min` and its like, six for each profile.

use std::collections::{BTreeMap, BTreeSet};

use super::ParameterError;
use crate::profile::{AxisRange, Profile, ProfileSet};

const AXES: [&str; 2] = ["tokens", "batch"];
const ENDS: [&str; 3] = ["min", "opt", "max"];

/// Number of the profile, axis, and end of the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProfileKey(u32, &'static str, &'static str);

impl ProfileKey {
    pub(super) fn read(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("profile.")?.split('.');
        let number = parts.next()?.parse().ok()?;
        let (axis, end) = (parts.next()?, parts.next()?);
        let axis = AXES.into_iter().find(|known| *known == axis)?;
        let end = ENDS.into_iter().find(|known| *known == end)?;
        parts.next().is_none().then_some(Self(number, axis, end))
    }
}

pub(super) fn size_of_profile(name: &str, value: &str) -> Result<u32, ParameterError> {
    let size = value.parse().ok().filter(|size| *size > 0);
    size.ok_or_else(|| ParameterError::WrongSize { name: name.to_owned(), value: value.to_owned() })
}

/// What is said of the profiles of these numbers.
pub(super) fn named(
    sizes: &BTreeMap<ProfileKey, u32>,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<ProfileKey, u32>, ParameterError> {
    let numbers: BTreeSet<String> = sizes.keys().map(|key| key.0.to_string()).collect();
    if let Some(name) = names.iter().find(|name| !numbers.contains(*name)) {
        let there = numbers.into_iter().collect::<Vec<_>>().join(", ");
        let there = if there.is_empty() { "none".to_owned() } else { there };
        return Err(ParameterError::NoProfile { name: name.clone(), there });
    }
    Ok(sizes.iter().filter(|(key, _)| names.contains(&key.0.to_string())).map(|(k, v)| (*k, *v)).collect())
}

pub(super) fn assemble(sizes: &BTreeMap<ProfileKey, u32>) -> Result<ProfileSet, ParameterError> {
    let numbers: BTreeSet<u32> = sizes.keys().map(|key| key.0).collect();
    let mut profiles = Vec::new();
    for number in numbers {
        let end = |axis, end| {
            let open = || {
                let missing = format!("profile.{number}.{axis}.{end}");
                ParameterError::OpenProfile { number, missing }
            };
            sizes.get(&ProfileKey(number, axis, end)).copied().ok_or_else(open)
        };
        let axis = |axis| -> Result<AxisRange, ParameterError> {
            Ok(AxisRange { min: end(axis, "min")?, opt: end(axis, "opt")?, max: end(axis, "max")? })
        };
        profiles.push(Profile { tokens: axis("tokens")?, batch: axis("batch")? });
    }
    Ok(ProfileSet::new(&profiles)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{PARAMETERS, Parameters};

    fn read(given: &[(&str, &str)]) -> Result<usize, String> {
        let params = Parameters::read(&[PARAMETERS], given.iter().copied()).unwrap();
        params.profiles().map(|set| set.profiles().count()).map_err(|error| error.to_string())
    }

    #[test]
    fn instance_groups_name_profiles_by_number() {
        let six = |n: u32, top: &'static str| {
            ["tokens.min", "tokens.opt", "tokens.max", "batch.min", "batch.opt", "batch.max"].map(|end| {
                let size = if end.ends_with("max") { top } else { "1" };
                (format!("profile.{n}.{end}"), size)
            })
        };
        let given: Vec<(String, &str)> = six(0, "8").into_iter().chain(six(3, "64")).collect();
        let params = Parameters::read(&[PARAMETERS], given.iter().map(|(k, v)| (k.as_str(), *v))).unwrap();
        let largest = |names: &[&str]| {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            params.profiles_named(&names).map(|set| set.max_batch()).map_err(|error| error.to_string())
        };
        assert_eq!((largest(&[]), largest(&["0"]), largest(&["0", "3"])), (Ok(64), Ok(8), Ok(64)));
        assert_eq!(largest(&["1"]), Err("an instance group names profile '1', there are: 0, 3".to_owned()));
    }

    #[test]
    fn a_profile_has_six_sizes() {
        let one = [
            ("profile.0.tokens.min", "1"),
            ("profile.0.tokens.opt", "64"),
            ("profile.0.tokens.max", "512"),
            ("profile.0.batch.min", "1"),
            ("profile.0.batch.opt", "8"),
            ("profile.0.batch.max", "16"),
        ];
        assert_eq!((read(&one), read(&[])), (Ok(1), Ok(0)));
        assert_eq!(read(&one[..5]), Err("profile 0 has no parameter 'profile.0.batch.max'".to_owned()));
        let mut bad = one;
        bad[5].1 = "4";
        assert!(read(&bad).unwrap_err().contains("grow in this order"));
    }
}
