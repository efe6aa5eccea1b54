//! The load request: another config for this load, and with it other files.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::error::{ProtocolError, Result};
use crate::limits::Limits;
use crate::proto::ModelRepositoryParameter;
use crate::proto::model_repository_parameter::ParameterChoice;

const CONFIG: &str = "config";
const FILE: &str = "file:";

/// What a load request asks for beside the model's name.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub struct LoadRequest {
    /// JSON of a whole model configuration that stands in for the one on disk.
    pub config: Option<String>,
    /// The model's files for this load; where there are any, those on disk are not seen.
    pub files: Vec<ModelFile>,
}

/// A file that a load request carries.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct ModelFile {
    /// Where it stands in the model's directory: relative, with `/`, no `.` or `..` in it.
    pub path: String,
    /// Its contents.
    pub contents: Bytes,
}

impl LoadRequest {
    /// Decodes an HTTP body, which may be empty. File contents are base64. Whether files need a config is for the loader
    /// to say.
    ///
    /// # Errors
    /// Broken JSON or base64, an unknown parameter, a path that leaves the directory of `model`.
    pub fn from_json(model: &str, body: &[u8], limits: &Limits) -> Result<Self> {
        let mut request = Self::default();
        let (mut unknown, mut wrong) = (None, None);
        super::each_parameter(body, limits, |reader, key| {
            if key == CONFIG {
                request.config = Some(reader.string()?.into_owned());
            } else if let Some(path) = key.strip_prefix(FILE) {
                let text = reader.string()?;
                let contents = STANDARD.decode(text.as_bytes());
                let contents = contents.map_err(|e| ProtocolError::invalid(format!("is not base64: {e}")))?;
                let pushed = request.push(path, contents.into(), limits);
                wrong = wrong.take().or(pushed.err().map(|error| not_loaded(model, key, error)));
            } else {
                let type_name = super::type_name(reader)?;
                unknown.get_or_insert_with(|| unrecognized(key, type_name));
                reader.skip()?;
            }
            Ok(())
        })?;
        wrong.or(unknown).map_or(Ok(request), Err)
    }

    /// Decodes the parameters of the gRPC message; file contents move without a copy.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json), and a parameter of another type than its name needs.
    pub fn from_proto(
        model: &str,
        parameters: BTreeMap<String, ModelRepositoryParameter>,
        limits: &Limits,
    ) -> Result<Self> {
        let mut request = Self::default();
        for (key, parameter) in parameters {
            match (key.strip_prefix(FILE), parameter.parameter_choice) {
                (None, Some(ParameterChoice::StringParam(config))) if key == CONFIG => {
                    request.config = Some(config);
                }
                (Some(path), Some(ParameterChoice::BytesParam(contents))) => request
                    .push(path, contents.into(), limits)
                    .map_err(|error| not_loaded(model, &key, error))?,
                (_, choice) => return Err(unrecognized(&key, choice.as_ref().map_or("none", proto_type))),
            }
        }
        Ok(request)
    }

    /// A request that came through neither door; contents move without a copy.
    ///
    /// # Errors
    /// A path that leaves the directory of `model` or is given twice, too many files.
    pub fn new(
        model: &str,
        config: Option<String>,
        files: impl IntoIterator<Item = (String, Bytes)>,
        limits: &Limits,
    ) -> Result<Self> {
        let mut request = Self { config, files: Vec::new() };
        for (path, contents) in files {
            let pushed = request.push(&path, contents, limits);
            pushed.map_err(|error| not_loaded(model, &format!("{FILE}{path}"), error))?;
        }
        Ok(request)
    }

    fn push(&mut self, path: &str, contents: Bytes, limits: &Limits) -> Result<()> {
        if !stays_inside(path) {
            return Err(ProtocolError::invalid(
                "must name a file inside the model's directory, relative and without '.' or '..'",
            ));
        }
        if self.files.iter().any(|f| f.path == path) {
            return Err(ProtocolError::invalid("is given twice"));
        }
        if self.files.len() >= limits.max_parameters {
            return Err(ProtocolError::invalid(format!("more than {} files", limits.max_parameters)));
        }
        self.files.push(ModelFile { path: path.to_owned(), contents });
        Ok(())
    }
}

fn not_loaded(model: &str, key: &str, error: ProtocolError) -> ProtocolError {
    let (model, key) = (model.escape_debug(), key.escape_debug());
    error.within(format_args!("failed to load '{model}': parameter '{key}'"))
}

/// Each component is a plain name; nothing is left to how a file system reads the path.
fn stays_inside(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', ':']))
}

fn unrecognized(key: &str, type_name: &str) -> ProtocolError {
    let key = key.escape_debug();
    ProtocolError::invalid(format!("Unrecognized load parameter '{key}' with type '{type_name}'"))
}

const fn proto_type(choice: &ParameterChoice) -> &'static str {
    match choice {
        ParameterChoice::BoolParam(_) => "BOOL",
        ParameterChoice::Int64Param(_) => "INT",
        ParameterChoice::StringParam(_) => "STRING",
        ParameterChoice::BytesParam(_) => "BYTES",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{LoadRequest, ParameterChoice};
    use crate::{Limits, proto::ModelRepositoryParameter};

    fn json(text: &str) -> Result<LoadRequest, String> {
        LoadRequest::from_json("m", text.as_bytes(), &Limits::default()).map_err(|e| e.message)
    }

    fn grpc(list: &[(&str, ParameterChoice)]) -> Result<LoadRequest, String> {
        let list = list.iter().map(|(key, choice)| {
            ((*key).to_owned(), ModelRepositoryParameter { parameter_choice: Some(choice.clone()) })
        });
        LoadRequest::from_proto("m", list.collect(), &Limits::default()).map_err(|e| e.message)
    }

    #[test]
    fn config_and_files_of_both_doors() {
        assert_eq!(json("").unwrap(), LoadRequest::default());
        assert_eq!(json(r#"{"parameters":{}}"#).unwrap(), LoadRequest::default());
        let http = json(r#"{"parameters":{"file:1/model.bin":"aGk=","config":"{\"name\":\"m\"}"}}"#).unwrap();
        assert_eq!(http.config.as_deref(), Some(r#"{"name":"m"}"#));
        assert_eq!(
            (http.files[0].path.as_str(), http.files[0].contents.as_ref()),
            ("1/model.bin", b"hi".as_slice())
        );
        let message = grpc(&[
            ("config", ParameterChoice::StringParam(r#"{"name":"m"}"#.into())),
            ("file:1/model.bin", ParameterChoice::BytesParam(b"hi".to_vec())),
        ]);
        assert_eq!(message.unwrap(), http);
    }

    #[test]
    fn refusals() {
        let file = |path: &str| json(&format!(r#"{{"parameters":{{"config":"{{}}","file:{path}":""}}}}"#));
        for bad in ["", "/etc/passwd", "../x", "1/../../x", "1//x", "./x", "a\\\\b", "x/", "\\u0000", "c:x"] {
            let error = file(bad).unwrap_err();
            assert!(error.contains("inside the model's directory"), "{bad}: {error}");
            assert!(error.starts_with("failed to load 'm': parameter 'file:"), "{bad}: {error}");
        }
        assert_eq!(
            json(r#"{"parameters":{"x":1}}"#).unwrap_err(),
            "Unrecognized load parameter 'x' with type 'INT'"
        );
        assert_eq!(
            json(r#"{"parameters":{"x":1.5}}"#).unwrap_err(),
            "Unrecognized load parameter 'x' with type 'DOUBLE'"
        );
        assert!(json(r#"{"parameters":{"config":{}}}"#).unwrap_err().starts_with("parameter 'config': "));
        assert!(
            json(r#"{"parameters":{"config":"","file:a":"%"}}"#)
                .unwrap_err()
                .starts_with("parameter 'file:a': is not base64")
        );
        assert!(
            json(r#"{"parameters":{"config":"","file:a":"","file:a":""}}"#)
                .unwrap_err()
                .ends_with("is given twice")
        );
        assert!(json(r#"{"parameters":[]}"#).is_err());
        let bytes = ParameterChoice::BytesParam(vec![]);
        assert_eq!(
            grpc(&[("config", bytes)]).unwrap_err(),
            "Unrecognized load parameter 'config' with type 'BYTES'"
        );
        assert!(crate::repository::refuse_repository_name("r").is_err_and(|e| e.status.http_status() == 501));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in r#"[{}\[\]",:a-z0-9 =]{0,40}"#) {
            let _ = json(&text);
            let _ = json(&format!("{{\"parameters\":{text}}}"));
            let _ = json(&format!("{{\"parameters\":{{\"config\":\"\",\"file:{text}\":\"\"}}}}"));
        }
    }
}
