//! Whether decode steps run as CUDA graphs: the several names of one setting.
//!
//! The server's are defaults for all models: `--use_cuda_graph[=false]`, which is `--backend-config
//! tensorrtllm,use_cuda_graph=…`. A model's own are its parameters `use_cuda_graph` and `cuda_graph_mode` and
//! `optimization { cuda { graphs } }`; they count more, and where several are given, they must say the same.

use serde_json::Value;
use trireme_llm::params::Parameters;
use trireme_sdk::{Error, Result};

/// Of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GraphSetting(pub(super) bool);

/// What a model's steps use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Graphs {
    pub(super) on: bool,
    /// Sizes that are recorded while the model loads, beside the usual ones: `graph_spec`.
    pub(super) first: Vec<usize>,
}

/// Settings of `--backend-config tensorrtllm,…`.
pub(super) fn of_settings(settings: &Value) -> Result<Option<GraphSetting>> {
    // What the server tells every backend is none of ours to judge.
    let Some(value) = settings.pointer("/cmdline/use_cuda_graph").or_else(|| settings.get("use_cuda_graph"))
    else {
        return Ok(None);
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(Some(GraphSetting(true))),
        "false" | "0" => Ok(Some(GraphSetting(false))),
        _ => Err(Error::invalid(format!(
            "--backend-config tensorrtllm,use_cuda_graph is '{text}', it must be true or false"
        ))),
    }
}

/// The model's own settings over those of the command line; graphs are on where nobody says.
pub(super) fn of_model(config: &Value, params: &Parameters, server: Option<GraphSetting>) -> Result<Graphs> {
    let mut said: Option<(&str, bool)> = None;
    let mut say = |name, on| match said {
        Some((other, before)) if before != on => Err(Error::invalid(format!(
            "'{other}' is {before} and '{name}' is {on}: they are names of one setting, leave one out"
        ))),
        _ => {
            said = Some((name, on));
            Ok(())
        }
    };
    for name in ["use_cuda_graph", "cuda_graph_mode"] {
        if let Some(on) = params.flag(name).filter(|_| params.is_given(name)) {
            say(name, on)?;
        }
    }
    let cuda = &config["optimization"]["cuda"];
    if cuda.is_object() {
        say("optimization.cuda.graphs", cuda["graphs"].as_bool().unwrap_or(false))?;
    }
    let on = said.map(|(_, on)| on).or(server.map(|s| s.0)).unwrap_or(true);
    let mut first = Vec::new();
    for (i, spec) in cuda["graph_spec"].as_array().into_iter().flatten().enumerate() {
        let name = format!("optimization.cuda.graph_spec[{i}]");
        if !on {
            return Err(Error::invalid(format!("{name} is given, but graphs are off")));
        }
        if spec["input"].as_object().is_some_and(|input| !input.is_empty()) {
            return Err(Error::invalid(format!(
                "{name}.input: the shapes of a decode step follow from its batch size, give 'batch_size' alone"
            )));
        }
        let size = spec["batch_size"].as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        first.push(size.ok_or_else(|| Error::invalid(format!("{name}.batch_size must be at least 1")))?);
    }
    Ok(Graphs { on, first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use trireme_llm::params::PARAMETERS;

    fn of(cuda: Value, params: &[(&str, &str)], server: Option<bool>) -> std::result::Result<Graphs, String> {
        let config = json!({"optimization": {"cuda": cuda}});
        let params =
            Parameters::read(&[PARAMETERS, super::super::PARAMETERS], params.iter().copied()).unwrap();
        of_model(&config, &params, server.map(GraphSetting)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_models_names_count_more_than_the_servers_and_agree() {
        let on = |g: std::result::Result<Graphs, String>| g.map(|g| g.on);
        assert_eq!(on(of(Value::Null, &[], None)), Ok(true));
        assert_eq!(on(of(Value::Null, &[], Some(false))), Ok(false));
        assert_eq!(on(of(Value::Null, &[("use_cuda_graph", "true")], Some(false))), Ok(true));
        assert_eq!(on(of(json!({"graphs": false}), &[], Some(true))), Ok(false));
        assert_eq!(on(of(json!({"graphs": true}), &[("cuda_graph_mode", "true")], None)), Ok(true));
        let error = of(json!({"graphs": true}), &[("cuda_graph_mode", "false")], None).unwrap_err();
        assert!(
            error.contains("'cuda_graph_mode' is false and 'optimization.cuda.graphs' is true"),
            "{error}"
        );
    }

    #[test]
    fn a_spec_is_a_batch_size() {
        let spec = |s: Value| of(json!({"graphs": true, "graph_spec": [s]}), &[], None);
        assert_eq!(spec(json!({"batch_size": 6})).map(|g| g.first), Ok(vec![6]));
        assert!(spec(json!({"batch_size": 0})).unwrap_err().contains("at least 1"));
        assert!(spec(json!({"batch_size": 1, "input": {"x": {"dim": [1]}}})).unwrap_err().contains("alone"));
        let off = of(json!({"graphs": false, "graph_spec": [{"batch_size": 1}]}), &[], None);
        assert!(off.unwrap_err().contains("graphs are off"));
    }

    #[test]
    fn the_command_line_says_true_or_false() {
        assert_eq!(of_settings(&json!({})).unwrap(), None);
        assert_eq!(of_settings(&json!({"use_cuda_graph": "false"})).unwrap(), Some(GraphSetting(false)));
        assert!(of_settings(&json!({"use_cuda_graph": "maybe"})).unwrap_err().to_string().contains("maybe"));
    }
}
