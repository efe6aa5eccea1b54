//! The flags of the response cache.

use anyhow::{Context, bail};

/// How many bytes the response cache has, if there is one.
///
/// # Errors
/// A cache that is not known here, or a setting that is none.
pub(crate) fn size(config: &[String], deprecated: Option<usize>) -> anyhow::Result<Option<usize>> {
    if deprecated.is_some() && !config.is_empty() {
        bail!(
            "Incompatible flags --response-cache-byte-size and --cache-config both provided. Please provide one or the \
             other."
        );
    }
    let mut size = None;
    for text in config {
        let setting =
            text.split_once(',').and_then(|(cache, setting)| Some((cache, setting.split_once('=')?)));
        let Some((cache, (key, value))) = setting else {
            bail!("--cache-config '{text}': expected local,size=BYTES");
        };
        if cache != "local" {
            bail!("--cache-config '{text}': the cache '{cache}' is not implemented; use local,size=BYTES");
        }
        if key != "size" {
            bail!("--cache-config '{text}': the cache local has no setting '{key}', only size");
        }
        let bytes = value
            .parse()
            .with_context(|| format!("--cache-config '{text}': '{value}' is no number of bytes"))?;
        if size.replace(bytes).is_some() {
            bail!("--cache-config gives the size of the cache twice");
        }
    }
    // Without room there is no cache.
    Ok(size.or(deprecated).filter(|bytes| *bytes > 0))
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn one_local_cache_with_a_size() {
        let of = |config: &[&str], deprecated| {
            let config: Vec<String> = config.iter().map(|text| (*text).to_owned()).collect();
            size(&config, deprecated).map_err(|error| error.to_string())
        };
        assert_eq!(of(&[], None), Ok(None));
        assert_eq!(of(&["local,size=1048576"], None), Ok(Some(1 << 20)));
        assert_eq!(of(&[], Some(77)), Ok(Some(77)));
        assert_eq!(of(&[], Some(0)), Ok(None));
        assert!(of(&["local,size=1"], Some(1)).is_err_and(|error| error.contains("Incompatible flags")));
        for wrong in ["local", "redis,host=x", "local,size=many", "local,sise=1"] {
            assert!(of(&[wrong], None).is_err(), "{wrong}");
        }
        assert!(of(&["local,size=1", "local,size=2"], None).is_err());
    }
}
