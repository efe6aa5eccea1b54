//! What is printed for the person who starts the server.

use std::fmt::Write;
use std::sync::Arc;

use trireme_runtime::{IndexEntry, ModelState, Served};

/// A table of models, versions, states and reasons.
pub(crate) fn table(models: &[IndexEntry]) -> String {
    let header = ["Model", "Version", "State", "Reason"];
    let rows: Vec<[String; 3]> = models
        .iter()
        .map(|entry| {
            let version = entry.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
            let state = entry.state.map_or_else(|| "not loaded".to_owned(), |state| state.to_string());
            [entry.name.clone(), version, state]
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let rule: String = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+");
    let mut out = String::new();
    let mut line = |a: &str, b: &str, c: &str, reason: &str| {
        // The reason comes last and may be long: it is not padded. Its further lines are indented.
        let mut lines = reason.lines();
        let first = lines.next().unwrap_or("");
        let row = format!(" {a:0$} | {b:1$} | {c:2$} | {first}", widths[0], widths[1], widths[2]);
        let _ = writeln!(out, "{}", row.trim_end());
        for more in lines {
            let _ = writeln!(out, "    {more}");
        }
    };
    line(header[0], header[1], header[2], header[3]);
    line(&rule, "", "", "");
    for (row, entry) in rows.iter().zip(models) {
        line(&row[0], &row[1], &row[2], &entry.reason);
    }
    let ruled = format!("{rule}+{}", "-".repeat(24));
    out.replacen(out.lines().nth(1).unwrap_or_default().to_owned().as_str(), &ruled, 1)
}

/// The configuration that a checkpoint is served with.
pub(crate) fn config(pbtxt: &str) -> String {
    let lines = pbtxt.trim_end().lines().map(|line| format!("    {line}\n"));
    format!(
        "\nconfig.pbtxt of this model (trireme serve CHECKPOINT --print-config writes it):\n{}\n",
        lines.collect::<String>()
    )
}

/// A line that can be pasted to try the first model that is ready; one that holds a conversation, if there is one.
pub(crate) fn try_line(
    models: &[IndexEntry],
    http: &str,
    openai: &[Arc<Served>],
    is_text: impl Fn(&str) -> bool,
) -> Option<String> {
    let chats =
        |model: &&Arc<Served>| model.openai_endpoints().iter().any(|endpoint| endpoint == "chat/completions");
    if let Some(model) = openai.iter().find(chats) {
        return Some(format!(
            "curl -N {http}/v1/chat/completions -d '{{\"model\": \"{}\", \"messages\": [{{\"role\": \"user\", \
             \"content\": \"What is the capital of France?\"}}], \"temperature\": 0, \"stream\": true}}'",
            model.name()
        ));
    }
    let ready = || models.iter().filter(|entry| entry.state == Some(ModelState::Ready));
    if let Some(entry) = ready().find(|entry| is_text(&entry.name)) {
        return Some(format!(
            "curl -N {http}/v2/models/{}/generate_stream -d '{{\"text_input\": \"What is the capital of France?\", \
             \"max_tokens\": 32, \"temperature\": 0, \"stream\": true}}'",
            entry.name
        ));
    }
    ready().next().map(|entry| format!("curl {http}/v2/models/{}", entry.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_model_with_its_reason() {
        let entry = |name: &str, version, state, reason: &str| IndexEntry {
            name: name.to_owned(),
            version,
            state,
            reason: reason.to_owned(),
        };
        let text = table(&[
            entry("simple", Some(1), Some(ModelState::Ready), ""),
            entry("broken", None, Some(ModelState::Unavailable), "config.pbtxt:3:1: unknown field\n  | x"),
        ]);
        expect_test::expect![[r#"
             Model  | Version | State       | Reason
            --------+---------+-------------+------------------------
             simple | 1       | READY       |
             broken | -       | UNAVAILABLE | config.pbtxt:3:1: unknown field
                  | x
        "#]]
        .assert_eq(&text);
    }
}
