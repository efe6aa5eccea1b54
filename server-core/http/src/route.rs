//! Which call a path names. Nothing is allocated unless a name is percent-encoded.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use trireme_protocol::ApiGroup;

use crate::openai::{self, OpenAi};

/// A call by its path; the method is checked by the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Page,
    Health,
    Server,
    Live,
    Ready,
    Model(Model<'a>, ModelCall),
    AllStatistics,
    Index { repository: &'a str },
    Load { repository: &'a str, model: Cow<'a, str> },
    Unload { repository: &'a str, model: Cow<'a, str> },
    Logging,
    Trace { model: Option<Cow<'a, str>> },
    SharedMemory { kind: Memory, region: Option<Cow<'a, str>>, call: RegionCall },
    OpenAi(OpenAi<'a>),
}

impl Route<'_> {
    /// The groups of calls that it belongs to; a restriction of any of them holds for it.
    pub(crate) fn groups(&self) -> &'static [ApiGroup] {
        match self {
            // The page shows all of it.
            Self::Page => &[ApiGroup::Metadata, ApiGroup::ModelRepository, ApiGroup::Health],
            Self::Health | Self::Live | Self::Ready | Self::Model(_, ModelCall::Ready) => &[ApiGroup::Health],
            Self::Server | Self::Model(_, ModelCall::Metadata) => &[ApiGroup::Metadata],
            Self::OpenAi(OpenAi::Models | OpenAi::Model(_)) => &[ApiGroup::Metadata],
            Self::OpenAi(OpenAi::Endpoint(_)) => &[ApiGroup::Inference],
            Self::Model(_, ModelCall::Config) => &[ApiGroup::ModelConfig],
            Self::AllStatistics | Self::Model(_, ModelCall::Statistics) => &[ApiGroup::Statistics],
            Self::Model(_, ModelCall::Infer | ModelCall::Generate | ModelCall::GenerateStream) => {
                &[ApiGroup::Inference]
            }
            Self::Index { .. } | Self::Load { .. } | Self::Unload { .. } => &[ApiGroup::ModelRepository],
            Self::Logging => &[ApiGroup::Logging],
            Self::Trace { .. } => &[ApiGroup::Trace],
            Self::SharedMemory { .. } => &[ApiGroup::SharedMemory],
        }
    }
}

/// A model as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model<'a> {
    pub(crate) name: Cow<'a, str>,
    /// Decimal digits, or empty for the server's choice.
    pub(crate) version: &'a str,
}

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelCall {
    Metadata,
    Ready,
    Config,
    Statistics,
    Infer,
    Generate,
    GenerateStream,
}

/// Which shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    System,
    Cuda,
}

/// What is asked of a region, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegionCall {
    Status,
    Register,
    Unregister,
}

/// No path has more parts: `v2/models/M/versions/V/generate_stream`.
const MAX_PARTS: usize = 6;

/// Finds the call of a path; `None` is answered `Not Found`. The whole path must match: a slash at the end does not.
pub(crate) fn route(path: &str) -> Option<Route<'_>> {
    if let Some(path) = path.strip_prefix("/v1/") {
        return openai::route(path).map(Route::OpenAi);
    }
    let mut parts = [""; MAX_PARTS];
    let mut count = 0;
    for part in path.strip_prefix('/')?.split('/') {
        *parts.get_mut(count)? = part;
        count += 1;
    }
    Some(match &parts[..count] {
        ["v2", "models", "stats"] => Route::AllStatistics,
        ["v2", "models", model, "trace", "setting"] => Route::Trace { model: Some(name(model)?) },
        ["v2", "models", model, rest @ ..] => model_route(model, rest)?,
        ["v2", "health", "live"] => Route::Live,
        ["v2", "health", "ready"] => Route::Ready,
        ["v2"] => Route::Server,
        ["v2", "repository", "index"] => Route::Index { repository: "" },
        ["v2", "repository", repository, "index"] => Route::Index { repository },
        ["v2", "repository", "models", model, call] => load_route("", name(model)?, call)?,
        ["v2", "repository", repository, "models", model, call] => {
            load_route(repository, name(model)?, call)?
        }
        ["v2", "logging"] => Route::Logging,
        ["v2", "trace", "setting"] => Route::Trace { model: None },
        ["v2", "systemsharedmemory", rest @ ..] => memory_route(Memory::System, rest)?,
        ["v2", "cudasharedmemory", rest @ ..] => memory_route(Memory::Cuda, rest)?,
        [""] => Route::Page,
        ["health"] => Route::Health,
        _ => return None,
    })
}

fn model_route<'a>(model: &'a str, rest: &[&'a str]) -> Option<Route<'a>> {
    let (version, call) = match rest {
        ["versions", version, call @ ..] if is_decimal(version) => (*version, call),
        call => ("", call),
    };
    let call = match call {
        ["infer"] => ModelCall::Infer,
        ["generate"] => ModelCall::Generate,
        ["generate_stream"] => ModelCall::GenerateStream,
        ["ready"] => ModelCall::Ready,
        ["config"] => ModelCall::Config,
        ["stats"] => ModelCall::Statistics,
        [] => ModelCall::Metadata,
        _ => return None,
    };
    Some(Route::Model(Model { name: name(model)?, version }, call))
}

fn load_route<'a>(repository: &'a str, model: Cow<'a, str>, call: &str) -> Option<Route<'a>> {
    match call {
        "load" => Some(Route::Load { repository, model }),
        "unload" => Some(Route::Unload { repository, model }),
        _ => None,
    }
}

fn memory_route<'a>(kind: Memory, rest: &[&'a str]) -> Option<Route<'a>> {
    let (region, call) = match rest {
        ["region", region, call] => (Some(name(region)?), *call),
        [call] => (None, *call),
        _ => return None,
    };
    let call = match (call, &region) {
        ("status", _) => RegionCall::Status,
        ("unregister", _) => RegionCall::Unregister,
        ("register", Some(_)) => RegionCall::Register,
        _ => return None,
    };
    Some(Route::SharedMemory { kind, region, call })
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A part that is a name: not empty, UTF-8 once decoded.
fn name(part: &str) -> Option<Cow<'_, str>> {
    if part.is_empty() {
        return None;
    }
    percent_decode_str(part).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, version: &'static str, call: ModelCall) -> Option<Route<'static>> {
        Some(Route::Model(Model { name: Cow::Owned(name.to_owned()), version }, call))
    }

    #[test]
    fn each_path_has_its_call() {
        assert_eq!(route("/v2/models/m/infer"), model("m", "", ModelCall::Infer));
        assert_eq!(route("/v2/models/m/versions/12/infer"), model("m", "12", ModelCall::Infer));
        assert_eq!(route("/v2/models/m"), model("m", "", ModelCall::Metadata));
        assert_eq!(route("/v2/models/m/versions/1"), model("m", "1", ModelCall::Metadata));
        assert_eq!(route("/v2/models/m/versions/1/ready"), model("m", "1", ModelCall::Ready));
        assert_eq!(route("/v2/models/m/config"), model("m", "", ModelCall::Config));
        assert_eq!(route("/v2/models/m/stats"), model("m", "", ModelCall::Statistics));
        assert_eq!(route("/v2/models/m/generate"), model("m", "", ModelCall::Generate));
        assert_eq!(route("/v2/models/m/generate_stream"), model("m", "", ModelCall::GenerateStream));
        assert_eq!(route("/v2/models/stats"), Some(Route::AllStatistics));
        assert_eq!(route("/v2/models/a%2Fb%20c/infer"), model("a/b c", "", ModelCall::Infer));
        assert_eq!(route("/v2"), Some(Route::Server));
        assert_eq!(route("/v2/health/live"), Some(Route::Live));
        assert_eq!(route("/v2/health/ready"), Some(Route::Ready));
        assert_eq!(route("/v2/repository/index"), Some(Route::Index { repository: "" }));
        assert_eq!(route("/v2/repository/r/index"), Some(Route::Index { repository: "r" }));
        assert_eq!(
            route("/v2/repository/models/m/load"),
            Some(Route::Load { repository: "", model: "m".into() })
        );
        assert_eq!(
            route("/v2/repository/r/models/m/unload"),
            Some(Route::Unload { repository: "r", model: "m".into() })
        );
        assert_eq!(route("/v2/trace/setting"), Some(Route::Trace { model: None }));
        assert_eq!(route("/v2/models/m/trace/setting"), Some(Route::Trace { model: Some("m".into()) }));
        assert_eq!(route("/v2/logging"), Some(Route::Logging));
        let memory = |kind, region: Option<&'static str>, call| {
            Some(Route::SharedMemory { kind, region: region.map(Cow::Borrowed), call })
        };
        assert_eq!(route("/v2/systemsharedmemory/status"), memory(Memory::System, None, RegionCall::Status));
        assert_eq!(
            route("/v2/cudasharedmemory/region/r/register"),
            memory(Memory::Cuda, Some("r"), RegionCall::Register)
        );
        assert_eq!(
            route("/v2/systemsharedmemory/unregister"),
            memory(Memory::System, None, RegionCall::Unregister)
        );
        assert_eq!((route("/"), route("/health")), (Some(Route::Page), Some(Route::Health)));
    }

    #[test]
    fn what_is_no_path_has_none() {
        for path in [
            "",
            "*",
            "/v2/",
            "/v3",
            "/v2/models",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/m/",
            "/v2/models/m/infer/",
            "/v2/models/m/infer/x/y/z/more",
            "/v2/models/m/versions",
            "/v2/models/m/versions/",
            "/v2/models/m/versions/one/infer",
            "/v2/models/m/versions/-1/infer",
            "/v2/models/%ff/infer",
            "/v2/repository/models/m/reload",
            "/v2/systemsharedmemory/register",
            "/v2/systemsharedmemory",
            "/v2/health",
        ] {
            assert_eq!(route(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_answered(path in "(/(v2|models|versions|[0-9]|%[0-9a-f]{2}|.{0,3})){0,8}") {
            let _ = route(&path);
        }
    }
}
