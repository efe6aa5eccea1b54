//! From a request to the handler that answers it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, EXPECT, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use trireme_drain::{Debt, Debts, Settling};
use trireme_runtime::{Core, ServeError};

use crate::answer::{Answer, Failure, method_not_allowed, not_found};
use crate::body::{self, Body};
use crate::encoding;
use crate::handlers::{generate, health, infer, memory, models, orca, page, repository, settings};
use crate::heads::forwarded;
use crate::offload::offload;
use crate::openai::{self, OpenAi};
use crate::options::HttpOptions;
use crate::route::{ModelCall, RegionCall, Route, route};

/// What all requests share.
pub(crate) struct Router {
    core: Arc<Core>,
    options: HttpOptions,
}

impl Router {
    pub(crate) fn new(core: Arc<Core>, options: HttpOptions) -> Self {
        Self { core, options }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Settling<Body>> {
        let (head, body) = request.into_parts();
        tracing::debug!("{} {}", head.method, head.uri.path());
        let openai = openai::is_openai(head.uri.path());
        // The connection's.
        let debts = head.extensions.get::<Debts>().cloned().unwrap_or_default();
        let mut debt = None;
        let answer =
            self.call(&head, body, (&debts, &mut debt)).await.unwrap_or_else(|failure| match openai {
                true => openai::failure_answer(failure, &head.method, head.uri.path()),
                false => failure.into_answer(),
            });
        answer.map(|body| Settling::new(body, &debts, debt))
    }

    async fn call(
        &self,
        head: &Parts,
        body: Incoming,
        (debts, debt): (&Debts, &mut Option<Debt>),
    ) -> Result<Answer, Failure> {
        let route = route(head.uri.path());
        let waits = head.headers.contains_key(EXPECT);
        if let Some(Err(failure)) = route.as_ref().map(|route| self.permits(route, &head.headers)) {
            body::discard(body, waits);
            return Err(failure);
        }
        // Read first, whatever the answer will be: unread bytes would cost the client its connection.
        let body = body::read(body, self.core.limits(), waits).await?;
        // Now that the client has said all it has to say.
        *debt = Some(debts.open());
        let Some(route) = route else { return Err(not_found()) };
        if !allows(&route, &head.method) {
            return Err(method_not_allowed());
        }
        let core = &self.core;
        let get = head.method == Method::GET;
        match route {
            Route::Model(model, ModelCall::Infer) => {
                let body = self.inflated(head, body).await?;
                let forwarded = forwarded(head, self.options.forward.as_ref());
                infer::infer(core, model, &head.headers, body, forwarded).await
            }
            Route::Model(model, call @ (ModelCall::Generate | ModelCall::GenerateStream)) => {
                let load = orca::Asked::by(&head.headers, &model);
                let mut answer = match call {
                    ModelCall::Generate => generate::generate(core, model, &head.headers, body).await?,
                    _ => generate::generate_stream(core, model, &head.headers, body).await?,
                };
                if let Some(load) = load {
                    load.tell(core, &mut answer);
                }
                Ok(answer)
            }
            Route::Model(model, ModelCall::Metadata) => models::metadata(core, &model),
            Route::Model(model, ModelCall::Ready) => models::ready(core, &model),
            Route::Model(model, ModelCall::Config) => models::config(core, &model),
            Route::Model(model, ModelCall::Statistics) => models::statistics(core, &model),
            Route::OpenAi(OpenAi::Models) => Ok(openai::models(core)),
            Route::OpenAi(OpenAi::Model(name)) => openai::model(core, &name),
            Route::OpenAi(OpenAi::Endpoint(endpoint)) => {
                let body = self.inflated(head, body).await?;
                let forwarded = forwarded(head, self.options.forward.as_ref());
                openai::call(core, endpoint, &head.headers, body, forwarded).await
            }
            Route::AllStatistics => models::all_statistics(core),
            Route::Server => Ok(models::server(core)),
            Route::Live => Ok(health::live(core)),
            Route::Ready => Ok(health::ready(core)),
            Route::Health => Ok(health::health(core)),
            Route::Page => Ok(page::page(core, &head.headers)),
            Route::Index { repository } => {
                repository::index(core, repository, &self.inflated(head, body).await?)
            }
            Route::Load { repository, model } => {
                repository::load(core, repository, &model, self.inflated(head, body).await?).await
            }
            Route::Unload { repository, model } => {
                repository::unload(core, repository, &model, &self.inflated(head, body).await?).await
            }
            Route::Logging if get => Ok(settings::log(&self.options.log)),
            Route::Logging => {
                settings::change_log(core, &self.options.log, &self.inflated(head, body).await?)
            }
            Route::Trace { .. } => {
                Err(Failure::from(ServeError::unavailable("the server does not support trace")))
            }
            Route::SharedMemory { kind, region, call } => {
                let body = self.inflated(head, body).await?;
                memory::call(core, kind, region.as_deref(), call, &body).await
            }
        }
    }

    /// Whether the caller may make the call.
    fn permits(&self, route: &Route<'_>, headers: &HeaderMap) -> Result<(), Failure> {
        let find = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        for group in route.groups() {
            self.options.restrictions.check(*group, find).map_err(|header| {
                let text = format!("This API is restricted, expecting header '{header}'");
                // Clients of OpenAI's API send their key in this header, and know this status.
                let key =
                    matches!(route, Route::OpenAi(_)) && header.eq_ignore_ascii_case(AUTHORIZATION.as_str());
                match key {
                    true => Failure::new(StatusCode::UNAUTHORIZED, text).coded("invalid_api_key"),
                    false => Failure::new(StatusCode::FORBIDDEN, text),
                }
            })?;
        }
        Ok(())
    }

    async fn inflated(&self, head: &Parts, body: Bytes) -> Result<Bytes, Failure> {
        let Some(encoding) = encoding::of_request(&head.headers)? else { return Ok(body) };
        let limits = *self.core.limits();
        // What it inflates to is not known; text shrinks to about an eighth.
        offload(body.len().saturating_mul(8), move || encoding.inflate(&body, &limits)).await
    }
}

/// Whether a path has a method.
fn allows(route: &Route<'_>, method: &Method) -> bool {
    match route {
        Route::Model(_, ModelCall::Infer | ModelCall::Generate | ModelCall::GenerateStream)
        | Route::OpenAi(OpenAi::Endpoint(_))
        | Route::Index { .. }
        | Route::Load { .. }
        | Route::Unload { .. }
        | Route::SharedMemory { call: RegionCall::Register | RegionCall::Unregister, .. } => {
            method == Method::POST
        }
        Route::Logging | Route::Trace { .. } => method == Method::GET || method == Method::POST,
        Route::Page
        | Route::Health
        | Route::Server
        | Route::Live
        | Route::Ready
        | Route::AllStatistics
        | Route::OpenAi(OpenAi::Models | OpenAi::Model(_))
        | Route::Model(
            _,
            ModelCall::Metadata | ModelCall::Ready | ModelCall::Config | ModelCall::Statistics,
        )
        | Route::SharedMemory { call: RegionCall::Status, .. } => method == Method::GET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_their_methods() {
        let allowed = |path: &str| {
            let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD];
            let names = methods.iter().filter(|m| route(path).is_some_and(|route| allows(&route, m)));
            names.map(Method::as_str).collect::<Vec<_>>().join(" ")
        };
        for path in ["/v2/models/m/infer", "/v2/models/m/generate", "/v2/repository/index"] {
            assert_eq!(allowed(path), "POST", "{path}");
        }
        for path in ["/", "/v2", "/v2/health/live", "/v2/models/m", "/v2/models/m/ready", "/v2/models/stats"]
        {
            assert_eq!(allowed(path), "GET", "{path}");
        }
        for path in ["/v2/logging", "/v2/trace/setting", "/v2/models/m/trace/setting"] {
            assert_eq!(allowed(path), "GET POST", "{path}");
        }
    }
}
