//! The parameters of `config.pbtxt` that engines for language models understand: one table, from which also the
//! documentation is made.

mod profiles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::profile::ProfileSet;
use profiles::{ProfileKey, size_of_profile};

/// What a parameter's text must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A path inside the model's version directory.
    Path,
    /// A whole number of at least 1.
    Count,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A number over 0 and up to 1.
    Fraction,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: &'static str,
    pub kind: ParameterKind,
    /// The value where the configuration gives none; empty for "none".
    pub default: &'static str,
    pub doc: &'static str,
}

/// What every engine understands. An engine adds rows of its own.
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "checkpoint",
        kind: ParameterKind::Path,
        default: ".",
        doc: "Where the model is: a Hugging Face folder or a `.gguf` file, relative to the version directory.",
    },
    Parameter {
        name: "load_format",
        kind: ParameterKind::Choice(&["auto", "dummy"]),
        default: "auto",
        doc: "How the checkpoint is read; `auto` looks at the files, `dummy` makes random weights for its `config.json`.",
    },
    Parameter {
        name: "dtype",
        kind: ParameterKind::Choice(&["auto"]),
        default: "auto",
        doc: "Type of the weights in memory; `auto` keeps them as they are in the checkpoint.",
    },
    Parameter {
        name: "max_tokens",
        kind: ParameterKind::Count,
        default: "256",
        doc: "Tokens to generate where a request does not say.",
    },
    Parameter {
        name: "max_context",
        kind: ParameterKind::Count,
        default: "",
        doc: "Longest sequence in tokens, prompt and answer together; the model's own context if not given.",
    },
    Parameter {
        name: "exclude_input_in_output",
        kind: ParameterKind::Flag,
        default: "false",
        doc: "Whether `output_ids` leaves the prompt out where a request does not say.",
    },
    Parameter {
        name: "chat_template",
        kind: ParameterKind::Choice(&["auto", "none"]),
        default: "auto",
        doc: "`auto` makes `text_input` a user's message if the checkpoint has a chat template; `none` takes it as it is.",
    },
    Parameter {
        name: "stream_interval",
        kind: ParameterKind::Count,
        default: "1",
        doc: "Tokens between two answers of a stream; the first token comes at once.",
    },
    Parameter {
        name: "batch_scheduler_policy",
        kind: ParameterKind::Choice(&["guaranteed_no_evict", "max_utilization"]),
        default: "guaranteed_no_evict",
        doc: "When a request starts: when there are blocks for all that it may need, or for what it has. Under `max_utilization` more run at a time, and one may be put back and computed again.",
    },
    Parameter {
        name: "max_num_tokens",
        kind: ParameterKind::Count,
        default: "",
        doc: "Tokens of a step, those of prompts and answers together. More make prompts faster and each step longer.",
    },
    Parameter {
        name: "max_tokens_in_paged_kv_cache",
        kind: ParameterKind::Count,
        default: "",
        doc: "Tokens whose keys and values there is room for, of all requests together.",
    },
    Parameter {
        name: "kv_cache_free_gpu_mem_fraction",
        kind: ParameterKind::Fraction,
        default: "",
        doc: "Share of the memory that is free after loading, for keys and values. Given with `max_tokens_in_paged_kv_cache`, the smaller of the two holds.",
    },
    Parameter {
        name: "enable_kv_cache_reuse",
        kind: ParameterKind::Flag,
        default: "true",
        doc: "Whether prompts that begin alike share keys and values. Answers do not depend on it.",
    },
    Parameter {
        name: "enable_chunked_context",
        kind: ParameterKind::Flag,
        default: "true",
        doc: "Whether a prompt may be read in pieces beside the tokens of others. Answers do not depend on it.",
    },
    Parameter {
        name: "decoding_mode",
        kind: ParameterKind::Choice(&["auto", "top_k", "top_p", "top_k_top_p"]),
        default: "auto",
        doc: "Every mode that draws one token at a time is the same here: each request says how its tokens are chosen.",
    },
];

const NO_PATHS: &str = "the checkpoint is the version's directory, or parameter 'checkpoint'";
const NO_GPU: &str = "it concerns GPUs";
const NO_EXECUTOR: &str = "the engine runs in the server itself";
const NO_ADAPTERS: &str = "adapters are not supported";
const NO_SPECULATION: &str = "speculative decoding is not supported";
const AT_ONCE: &str = "cancellations and statistics are seen at once";
const OWN_MEMORY: &str = "keys and values lie in one pool, see 'max_tokens_in_paged_kv_cache' and 'kv_cache_free_gpu_mem_fraction'";
const OWN_KERNELS: &str = "the engine chooses its kernels by itself";

/// Parameters of TensorRT-LLM's Triton backend that are taken and change nothing here, with the reason.
const UPSTREAM: &[(&str, &str)] = &[
    ("max_beam_width", "there is no beam search; a request that asks for it is refused"),
    ("FORCE_CPU_ONLY_INPUT_TENSORS", "inputs are in the memory of the CPU"),
    ("gpt_model_type", "requests are batched in flight"),
    ("gpt_model_path", NO_PATHS),
    ("encoder_model_path", NO_PATHS),
    ("tokenizer_dir", "the tokenizer comes with the checkpoint"),
    ("xgrammar_tokenizer_info_path", "the tokenizer comes with the checkpoint"),
    ("executor_worker_path", NO_EXECUTOR),
    ("gpu_device_ids", NO_EXECUTOR),
    ("participant_ids", NO_EXECUTOR),
    ("num_nodes", NO_EXECUTOR),
    ("max_attention_window_size", "attention has the window of the checkpoint"),
    ("sink_token_length", "attention has the window of the checkpoint"),
    ("cross_kv_cache_fraction", OWN_MEMORY),
    ("kv_cache_host_memory_bytes", OWN_MEMORY),
    ("kv_cache_onboard_blocks", OWN_MEMORY),
    ("gpu_weights_percent", OWN_MEMORY),
    ("enable_trt_overlap", OWN_KERNELS),
    ("enable_context_fmha_fp32_acc", OWN_KERNELS),
    ("multi_block_mode", OWN_KERNELS),
    ("cuda_graph_mode", OWN_KERNELS),
    ("cuda_graph_cache_size", OWN_KERNELS),
    ("cancellation_check_period_ms", AT_ONCE),
    ("stats_check_period_ms", AT_ONCE),
    ("recv_poll_period_ms", AT_ONCE),
    ("iter_stats_max_iterations", AT_ONCE),
    ("request_stats_max_iterations", AT_ONCE),
    ("normalize_log_probs", "it concerns beam search only"),
    ("lora_cache_optimal_adapter_size", NO_ADAPTERS),
    ("lora_cache_max_adapter_size", NO_ADAPTERS),
    ("lora_cache_gpu_memory_fraction", NO_ADAPTERS),
    ("lora_cache_host_memory_bytes", NO_ADAPTERS),
    ("lora_prefetch_dir", NO_ADAPTERS),
    ("lookahead_window_size", NO_SPECULATION),
    ("lookahead_ngram_size", NO_SPECULATION),
    ("lookahead_verification_set_size", NO_SPECULATION),
    ("medusa_choices", NO_SPECULATION),
    ("eagle_choices", NO_SPECULATION),
    ("speculative_decoding_fast_logits", NO_SPECULATION),
    ("guided_decoding_backend", "the engine has one"),
    ("use_cuda_graph", NO_GPU),
    ("fusion", NO_GPU),
    ("deterministic", "answers never depend on what else runs"),
];

/// A parameter that is unknown or has a wrong value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error("unknown parameter '{name}'{}", suggestion.map(|s| format!(", did you mean '{s}'?")).unwrap_or_default())]
    Unknown { name: String, suggestion: Option<&'static str> },
    #[error("parameter '{name}' is '{value}', it must be {expected}")]
    WrongValue { name: &'static str, value: String, expected: String },
    #[error("parameter '{name}' is '{value}', it must be a whole number of at least 1")]
    WrongSize { name: String, value: String },
    #[error("an instance group names profile '{name}', there are: {there}")]
    NoProfile { name: String, there: String },
    #[error("profile {number} has no parameter '{missing}'")]
    OpenProfile { number: u32, missing: String },
    #[error("parameters 'profile.<n>.…': {0}")]
    Profile(#[from] crate::profile::ProfileError),
}

/// Checked values of all parameters of a table.
#[derive(Clone, Debug)]
pub struct Parameters {
    values: BTreeMap<&'static str, String>,
    given: BTreeSet<&'static str>,
    profiles: BTreeMap<ProfileKey, u32>,
    idle: Vec<(&'static str, &'static str)>,
}

impl Parameters {
    /// Checks what a configuration gives against the rows of `tables`; rows that are not given take their default.
    pub fn read<'a>(
        tables: &[&[Parameter]],
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ParameterError> {
        let rows = || tables.iter().copied().flatten();
        let mut values: BTreeMap<_, _> = rows().map(|row| (row.name, row.default.to_owned())).collect();
        let mut idle = Vec::new();
        let mut told = BTreeSet::new();
        let mut profiles = BTreeMap::new();
        for (name, value) in given {
            if let Some(key) = ProfileKey::read(name) {
                profiles.insert(key, size_of_profile(name, value)?);
                continue;
            }
            let upstream = UPSTREAM.iter().find(|(known, _)| *known == name);
            if let Some(upstream) = upstream.filter(|_| !rows().any(|row| row.name == name)) {
                idle.push(*upstream);
                continue;
            }
            let Some(row) = rows().find(|row| row.name == name) else {
                return Err(ParameterError::Unknown {
                    name: name.to_owned(),
                    suggestion: nearest(name, rows().map(|row| row.name)),
                });
            };
            let wrong =
                |expected| ParameterError::WrongValue { name: row.name, value: value.to_owned(), expected };
            // Upstream's templates have these where nobody has filled them in.
            if value.is_empty() || (value.starts_with("${") && value.ends_with('}')) {
                idle.push((row.name, "it has no value"));
                continue;
            }
            row.kind.check(value).map_err(wrong)?;
            values.insert(row.name, value.to_owned());
            told.insert(row.name);
        }
        Ok(Self { values, given: told, profiles, idle })
    }

    /// Parameters of the configuration that change nothing, each with the reason.
    pub fn idle(&self) -> &[(&'static str, &'static str)] {
        &self.idle
    }

    /// Whether the configuration gives a parameter.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// The value of a [`ParameterKind::Flag`].
    pub fn flag(&self, name: &str) -> Option<bool> {
        flag(self.text(name)?)
    }

    /// The value of a [`ParameterKind::Fraction`].
    pub fn fraction(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }

    /// The shape profiles that the configuration gives.
    ///
    /// # Errors
    /// A profile lacks an end of an axis, or its ends do not grow.
    pub fn profiles(&self) -> Result<ProfileSet, ParameterError> {
        profiles::assemble(&self.profiles)
    }

    /// The same, but only those that instance groups name by their number.
    ///
    /// # Errors
    /// As [`Self::profiles`]; or there is no profile of that number.
    pub fn profiles_named(&self, names: &BTreeSet<String>) -> Result<ProfileSet, ParameterError> {
        if names.is_empty() {
            return self.profiles();
        }
        profiles::assemble(&profiles::named(&self.profiles, names)?)
    }

    /// The text of a parameter, `None` if it is neither given nor has a default.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The value of a [`ParameterKind::Count`].
    pub fn count(&self, name: &str) -> Option<usize> {
        self.text(name)?.parse().ok()
    }

    /// The checkpoint's path of a model in this version directory.
    pub fn checkpoint(&self, version_dir: &Path) -> PathBuf {
        match self.text("checkpoint") {
            None | Some(".") => version_dir.to_path_buf(),
            Some(path) => version_dir.join(path),
        }
    }
}

impl ParameterKind {
    /// What the value must be, if it is not that.
    fn check(self, value: &str) -> Result<(), String> {
        let inside = |c| matches!(c, Component::Normal(_) | Component::CurDir);
        match self {
            Self::Path if value.is_empty() || !Path::new(value).components().all(inside) => {
                Err("a relative path that stays inside the version directory".into())
            }
            Self::Count if !value.parse::<u32>().is_ok_and(|n| n > 0) => {
                Err(format!("a whole number from 1 to {}", u32::MAX))
            }
            Self::Flag if flag(value).is_none() => Err("true or false".into()),
            Self::Fraction if !value.parse::<f64>().is_ok_and(|x| x > 0.0 && x <= 1.0) => {
                Err("a number over 0 and up to 1".into())
            }
            Self::Choice(words) if !words.contains(&value) => Err(format!("one of: {}", words.join(", "))),
            _ => Ok(()),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Path => "path".into(),
            Self::Count => "count".into(),
            Self::Flag => "`true`, `false`".into(),
            Self::Fraction => "over 0, up to 1".into(),
            Self::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        }
    }
}

/// As upstream's configurations spell it.
fn flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// The known name that is most like `name`, if any is at all.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let scored = known.map(|k| (strsim::jaro_winkler(name, k), k)).filter(|(score, _)| *score > 0.8);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
}

/// The table as Markdown.
pub fn to_markdown(table: &[Parameter]) -> String {
    let mut out = "| parameter | value | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for row in table {
        let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
        out += &format!("| `{}` | {} | {} | {} |\n", row.name, row.kind.name(), default, row.doc);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use expect_test::expect;

    const OWN: &[Parameter] =
        &[Parameter { name: "num_threads", kind: ParameterKind::Count, default: "", doc: "Threads." }];

    fn error(name: &str, value: &str) -> String {
        Parameters::read(&[PARAMETERS, OWN], [(name, value)]).unwrap_err().to_string()
    }

    #[test]
    fn defaults_and_values() {
        let p =
            Parameters::read(&[PARAMETERS, OWN], [("checkpoint", "a/b.gguf"), ("num_threads", "4")]).unwrap();
        assert_eq!(p.checkpoint(Path::new("/m/1")), Path::new("/m/1/a/b.gguf"));
        assert_eq!(
            (p.count("num_threads"), p.count("max_tokens"), p.count("max_context")),
            (Some(4), Some(256), None)
        );
        let p = Parameters::read(&[PARAMETERS], []).unwrap();
        assert_eq!(p.checkpoint(Path::new("/m/1")), Path::new("/m/1"));
    }

    #[test]
    fn errors_say_the_mend() {
        expect!["unknown parameter 'check_point', did you mean 'checkpoint'?"]
            .assert_eq(&error("check_point", "x"));
        expect!["unknown parameter 'zzz'"].assert_eq(&error("zzz", "x"));
        expect!["parameter 'enable_kv_cache_reuse' is 'maybe', it must be true or false"]
            .assert_eq(&error("enable_kv_cache_reuse", "maybe"));
        expect![
            "parameter 'kv_cache_free_gpu_mem_fraction' is '1.5', it must be a number over 0 and up to 1"
        ]
        .assert_eq(&error("kv_cache_free_gpu_mem_fraction", "1.5"));
        expect!["parameter 'decoding_mode' is 'medusa', it must be one of: auto, top_k, top_p, top_k_top_p"]
            .assert_eq(&error("decoding_mode", "medusa"));
        expect!["parameter 'profile.0.batch.max' is 'x', it must be a whole number of at least 1"]
            .assert_eq(&error("profile.0.batch.max", "x"));
        expect!["parameter 'checkpoint' is '../x', it must be a relative path that stays inside the version directory"]
            .assert_eq(&error("checkpoint", "../x"));
        expect!["parameter 'load_format' is 'pickle', it must be one of: auto, dummy"]
            .assert_eq(&error("load_format", "pickle"));
        expect!["parameter 'num_threads' is '0', it must be a whole number from 1 to 4294967295"]
            .assert_eq(&error("num_threads", "0"));
    }

    #[test]
    fn upstreams_parameters_are_taken_with_a_reason() {
        let p =
            Parameters::read(&[PARAMETERS, OWN], [("gpt_model_type", "V1"), ("max_tokens", "3")]).unwrap();
        assert_eq!(p.idle(), [("gpt_model_type", "requests are batched in flight")]);
        assert_eq!(p.count("max_tokens"), Some(3));
    }

    #[test]
    fn the_defaults_are_values() {
        for row in PARAMETERS.iter().filter(|row| !row.default.is_empty()) {
            assert_eq!(row.kind.check(row.default), Ok(()), "{}", row.name);
        }
        assert!(to_markdown(PARAMETERS).contains("| `load_format` | `auto`, `dummy` | `auto` |"));
    }
}
