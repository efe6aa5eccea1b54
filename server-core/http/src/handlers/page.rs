//! `GET /`: one plain page with the models, their states and reasons, and a line to try.

use std::fmt::Write;

use http::header::{CACHE_CONTROL, HOST, HeaderValue};
use http::{HeaderMap, StatusCode};
use trireme_runtime::{Core, IndexEntry, ModelState};

use crate::answer::{Answer, HTML, with_type};

const PAGE: &str = include_str!("../../assets/page.html");

pub(crate) fn page(core: &Core, headers: &HeaderMap) -> Answer {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| is_host(host));
    let state = match (core.is_draining(), core.is_ready()) {
        (true, _) => "shutting down",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let models = core.index(false);
    let line = try_line(&models, host.unwrap_or("localhost:8000"), |name| core.takes_text(name));
    let text = render(core.server_name(), core.server_version(), state, &rows(&models), &line);
    let mut answer = with_type(StatusCode::OK, HTML, text);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// One pass over the page, so that no value is taken for a place.
fn render(name: &str, version: &str, state: &str, rows: &str, line: &str) -> String {
    let mut out = String::with_capacity(PAGE.len() + rows.len() + 512);
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (place, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        match place {
            "name" => escape(&mut out, name),
            "version" => escape(&mut out, version),
            "state" => escape(&mut out, state),
            // Escaped where they are made.
            "rows" => out.push_str(rows),
            _ => escape(&mut out, line),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn rows(models: &[IndexEntry]) -> String {
    let mut out = String::new();
    for model in models {
        let version = model.version.map_or_else(|| "–".to_owned(), |version| version.to_string());
        let state = model.state.map_or_else(|| "not loaded".to_owned(), |state| state.to_string());
        out.push_str("<tr><td>");
        escape(&mut out, &model.name);
        let _ = write!(out, "<td>{version}<td class=\"{state}\">{state}<td class=\"reason\">");
        escape(&mut out, &model.reason);
        out.push_str("</tr>\n");
    }
    if models.is_empty() {
        out.push_str("<tr><td colspan=\"4\">There is no model in the repositories.</tr>\n");
    }
    out
}

fn try_line(models: &[IndexEntry], host: &str, takes_text: impl Fn(&str) -> bool) -> String {
    let ready = || models.iter().filter(|model| model.state == Some(ModelState::Ready));
    if let Some(model) = ready().find(|model| takes_text(&model.name)) {
        return format!(
            "curl -N http://{host}/v2/models/{}/generate_stream \\\n  -d '{{\"text_input\": \"What is the capital of \
             France?\", \"max_tokens\": 32, \"temperature\": 0, \"stream\": true}}'",
            model.name
        );
    }
    match ready().next() {
        Some(model) => format!("curl http://{host}/v2/models/{}", model.name),
        None => format!("curl -X POST http://{host}/v2/repository/index"),
    }
}

/// What a client may say that it called; it is shown to that client only, but on a command line to paste.
fn is_host(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte))
}

fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, state: Option<ModelState>, reason: &str) -> IndexEntry {
        IndexEntry { name: name.to_owned(), version: state.map(|_| 1), state, reason: reason.to_owned() }
    }

    #[test]
    fn what_a_model_is_called_is_not_markup() {
        let rows = rows(&[entry("<b>", Some(ModelState::Ready), ""), entry("x", None, "a & \"b\"")]);
        assert!(rows.contains("<td>&lt;b&gt;<td>1<td class=\"READY\">READY<"));
        assert!(rows.contains(
            "<td>x<td>–<td class=\"not loaded\">not loaded<td class=\"reason\">a &amp; &quot;b&quot;<"
        ));
        let page = render("{{rows}}<", "1", "ready", &rows, "'");
        assert!(page.contains("<h1>{{rows}}&lt;</h1>") && page.contains("<pre>&#39;</pre>"));
        assert!(page.trim_end().ends_with("</pre>"));
    }

    #[test]
    fn the_line_to_try_is_for_a_model_that_is_ready() {
        let models =
            [entry("a", Some(ModelState::Unavailable), "no"), entry("b", Some(ModelState::Ready), "")];
        assert_eq!(try_line(&models, "h:1", |_| false), "curl http://h:1/v2/models/b");
        assert!(
            try_line(&models, "h:1", |_| true).starts_with("curl -N http://h:1/v2/models/b/generate_stream")
        );
        assert_eq!(try_line(&models[..1], "h", |_| true), "curl -X POST http://h/v2/repository/index");
        assert!(is_host("[::1]:8000") && !is_host("a' ; rm"));
    }
}
