//! Decoders from a Hugging Face `config.json`.

use serde_json::Value;

use super::config::DecoderConfig;
use super::rope::RopeScaling;
use super::{DecoderBiases, check};
use crate::checkpoint::config::Architecture;
use crate::checkpoint::error::CheckpointErrorKind as Kind;
use crate::checkpoint::hf::HfFolder;
use crate::checkpoint::json::Object;
use crate::checkpoint::limits::{positive, positive_f32};

pub(super) fn llama(folder: &HfFolder) -> Result<Architecture, Kind> {
    let attention = folder.config().bool("attention_bias")?.unwrap_or(false);
    let mlp = folder.config().bool("mlp_bias")?.unwrap_or(false);
    let mut c = common(folder, DecoderBiases { qkv: attention, output: attention, mlp })?;
    layer_types(folder.config(), &mut c)?;
    check(c)
}

pub(super) fn mistral(folder: &HfFolder) -> Result<Architecture, Kind> {
    let mut c = common(folder, DecoderBiases::default())?;
    c.sliding_window = folder.config().optional_size("sliding_window")?;
    layer_types(folder.config(), &mut c)?;
    check(c)
}

pub(super) fn qwen2(folder: &HfFolder) -> Result<Architecture, Kind> {
    let mut c = common(folder, DecoderBiases { qkv: true, ..DecoderBiases::default() })?;
    qwen_window(folder.config(), &mut c)?;
    layer_types(folder.config(), &mut c)?;
    check(c)
}

pub(super) fn qwen3(folder: &HfFolder) -> Result<Architecture, Kind> {
    let attention = folder.config().bool("attention_bias")?.unwrap_or(false);
    let mut c = common(folder, DecoderBiases { qkv: attention, output: attention, mlp: false })?;
    c.qk_norm = true;
    qwen_window(folder.config(), &mut c)?;
    layer_types(folder.config(), &mut c)?;
    check(c)
}

/// Qwen's window is off unless `use_sliding_window` is true, and then the first `max_window_layers` have none.
fn qwen_window(config: &Object, c: &mut DecoderConfig) -> Result<(), Kind> {
    if !config.bool("use_sliding_window")?.unwrap_or(false) {
        return Ok(());
    }
    let first = match config.get("max_window_layers") {
        None => 28,
        Some(v) => v
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| Kind::malformed("'max_window_layers' in config.json is no whole number"))?,
    };
    // `layer_types` says it layer by layer, and goes before this number.
    if first < c.num_layers || config.get("layer_types").is_some() {
        c.sliding_window = config.optional_size("sliding_window")?;
        c.first_window_layer = first;
    }
    Ok(())
}

/// `layer_types`, of newer files: which layers have the window. It must agree with what the other keys say.
fn layer_types(config: &Object, c: &mut DecoderConfig) -> Result<(), Kind> {
    const SLIDING: &str = "sliding_attention";
    let Some(value) = config.get("layer_types") else { return Ok(()) };
    let types: Option<Vec<&str>> = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
    let types = types.filter(|types| types.len() == c.num_layers).ok_or_else(|| {
        Kind::Malformed(format!(
            "'layer_types' in config.json is no list of {} words, one a layer",
            c.num_layers
        ))
    })?;
    if let Some(other) = types.iter().find(|word| !["full_attention", SLIDING].contains(word)) {
        return Err(Kind::Unsupported(format!("layer type '{other}' of config.json")));
    }
    let first = types.iter().position(|word| *word == SLIDING).unwrap_or(c.num_layers);
    if types[first..].iter().any(|word| *word != SLIDING) {
        return Err(Kind::Unsupported("'layer_types' with full attention behind a sliding window".into()));
    }
    match c.sliding_window {
        None if first < c.num_layers => {
            Err(Kind::malformed("'layer_types' has sliding windows, but no 'sliding_window' is in force"))
        }
        Some(_) if first == c.num_layers && c.window(c.num_layers - 1).is_some() => {
            Err(Kind::malformed("'sliding_window' is in force, but 'layer_types' has none"))
        }
        _ => {
            c.first_window_layer = first;
            Ok(())
        }
    }
}

/// What all members of the family share.
fn common(folder: &HfFolder, biases: DecoderBiases) -> Result<DecoderConfig, Kind> {
    let config = folder.config();
    config.only("hidden_act", &["silu", "swish"])?;
    let hidden_size = config.size("hidden_size")?;
    let num_heads = config.size("num_attention_heads")?;
    let head_dim = match config.optional_size("head_dim")? {
        Some(n) => n,
        None => hidden_size / num_heads,
    };
    let rope_theta = match config.number("rope_theta")? {
        Some(theta) => theta,
        None => config.rope_parameter("rope_theta")?.unwrap_or(10_000.0),
    };
    for factor in [config.number("partial_rotary_factor")?, config.rope_parameter("partial_rotary_factor")?] {
        if factor.is_some_and(|factor| factor != 1.0) {
            return Err(Kind::Unsupported("a 'partial_rotary_factor' other than 1".into()));
        }
    }
    let stated = config.optional_size("max_position_embeddings")?.unwrap_or(2048);
    let (rope_scaling, max_position_embeddings) = rope(config, stated)?;
    Ok(DecoderConfig {
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        intermediate_size: config.size("intermediate_size")?,
        num_layers: config.size("num_hidden_layers")?,
        num_heads,
        num_kv_heads: config.optional_size("num_key_value_heads")?.unwrap_or(num_heads),
        head_dim,
        rope_theta: positive_f32("rope_theta", rope_theta)?,
        rope_scaling,
        rms_norm_eps: positive_f32("rms_norm_eps", config.number("rms_norm_eps")?.unwrap_or(1e-6))?,
        max_position_embeddings,
        sliding_window: None,
        first_window_layer: 0,
        qkv_bias: biases.qkv,
        output_bias: biases.output,
        mlp_bias: biases.mlp,
        qk_norm: false,
        tie_word_embeddings: config.bool("tie_word_embeddings")?.unwrap_or(false),
        bos_token_id: folder.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: folder.token_ids("eos_token_id")?,
        pad_token_id: folder.token_ids("pad_token_id")?.first().copied(),
    })
}

/// The scaling (`rope_scaling`, or `rope_parameters` of newer files), and the context with it.
fn rope(config: &Object, stated: usize) -> Result<(RopeScaling, usize), Kind> {
    let found = ["rope_scaling", "rope_parameters"]
        .into_iter()
        .find_map(|key| config.rope_type(key).transpose().map(|kind| (key, kind)));
    let Some((key, kind)) = found else { return Ok((RopeScaling::None, stated)) };
    let kind = kind?;
    let object = config.get(key).and_then(Value::as_object);
    let optional = |name: &str| -> Result<Option<f32>, Kind> {
        match object.and_then(|o| o.get(name)).filter(|v| !v.is_null()) {
            None => Ok(None),
            Some(v) => {
                let n = v.as_f64().ok_or_else(|| Kind::Malformed(format!("'{key}.{name}' is no number")))?;
                positive_f32(&format!("{key}.{name}"), n).map(Some)
            }
        }
    };
    let number = |name: &str| {
        optional(name)?
            .ok_or_else(|| Kind::Malformed(format!("'{key}.{name}' is missing, '{kind}' needs it")))
    };
    let original = match object.and_then(|o| o.get("original_max_position_embeddings")) {
        None | Some(Value::Null) => config.optional_size("original_max_position_embeddings")?,
        Some(v) => Some(positive(
            "original_max_position_embeddings",
            v.as_u64()
                .ok_or_else(|| Kind::malformed("'original_max_position_embeddings' is no whole number"))?,
        )?),
    };
    let stretched = |by: f32| (stated as f64 * f64::from(by)) as usize;
    Ok(match kind {
        "linear" => {
            let factor = number("factor")?;
            (RopeScaling::Linear { factor }, stretched(factor).max(1))
        }
        "dynamic" => {
            let (factor, original_max) = (number("factor")?, original.unwrap_or(stated));
            (RopeScaling::Dynamic { factor, original_max }, stretched(factor).max(1))
        }
        "llama3" => {
            let scaling = RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max: original.ok_or_else(|| {
                    Kind::Malformed(format!("'{key}.original_max_position_embeddings' is missing"))
                })?,
            };
            (scaling, stated)
        }
        "yarn" => {
            let factor = number("factor")?;
            let original_max = original.unwrap_or(stated);
            let scale = |mscale: f32| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
            let attention_factor =
                match (optional("attention_factor")?, optional("mscale")?, optional("mscale_all_dim")?) {
                    (Some(given), _, _) => given,
                    (None, Some(m), Some(all)) => scale(m) / scale(all),
                    _ => scale(1.0),
                };
            let truncate = object.and_then(|o| o.get("truncate")).and_then(Value::as_bool).unwrap_or(true);
            let scaling = RopeScaling::Yarn {
                factor,
                original_max,
                beta_fast: optional("beta_fast")?.unwrap_or(32.0),
                beta_slow: optional("beta_slow")?.unwrap_or(1.0),
                attention_factor,
                truncate,
            };
            (scaling, stated.max((original_max as f64 * f64::from(factor)) as usize))
        }
        other => return Err(Kind::Unsupported(format!("rope scaling '{other}'"))),
    })
}
