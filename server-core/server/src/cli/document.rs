//! `docs/flags.md`, written from the table.

use std::fmt::Write;

use super::flag::{Effect, Flag};
use super::table::TABLE;

/// The text of `docs/flags.md`.
pub fn flags_document() -> String {
    let mut out = String::from(
        "# Flags\n\n\
         <!-- Written from the table in server-core/server/src/cli/table by the test `the_document_is_the_table`; to \
         write it anew: UPDATE_EXPECT=1 cargo nextest run --release -p trireme. -->\n\n\
         `trireme serve` has the flags of `tritonserver` 2.73. Started under the name `tritonserver`, the program \
         behaves as `trireme serve`. Flags are given as `--flag VALUE` or `--flag=VALUE`; of a flag that is given \
         twice the last value counts, unless it may be given several times. Truth values are `true`, `on`, `1`, \
         `false`, `off`, `0`.\n\n\
         Every flag does one of three things, as the last column says: it **works**; it has **no effect** here and \
         warns once; or it is **refused**, because a deployment relies on it.\n",
    );
    for (heading, flags) in TABLE {
        let _ = write!(out, "\n## {heading}\n\n| flag | default | meaning | here |\n|---|---|---|---|\n");
        flags.iter().for_each(|flag| row(&mut out, flag));
    }
    out.push_str(ENVIRONMENT);
    out
}

const ENVIRONMENT: &str = "\n## Environment\n\n\
    Hooks of tritonserver's own test suites. A server that serves anybody must not have them: requests would wait for company \
    without end.\n\n\
    | variable | meaning |\n|---|---|\n\
    | `TRITONSERVER_DELAY_SCHEDULER=N` | The batcher of a model forms its first batch when N requests wait: with `dynamic_batching` in the \
    model's queue, with `sequence_batching { direct }` in the slots of all instances, with `oldest` in the batcher of an instance (at most one of each sequence). \
    Each load counts anew. |\n\
    | `TRITONSERVER_BACKLOG_DELAY_SCHEDULER=M` | With `sequence_batching { direct }`, and if the one above is set: M requests have to wait in the backlog besides. |\n";

fn row(out: &mut String, flag: &Flag) {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut name = format!("`--{} {}`", flag.name, cell(&flag.grammar.placeholder()));
    if !flag.alias.is_empty() {
        let _ = write!(name, ", `--{}`", flag.alias);
    }
    if flag.repeats {
        name.push_str(" (several times)");
    }
    let default = if flag.default.is_empty() { String::new() } else { format!("`{}`", flag.default) };
    let except = if flag.fine.is_empty() {
        String::new()
    } else {
        format!(" (nothing is said of `{}`)", flag.fine.join("`, `"))
    };
    let here = match flag.effect {
        Effect::Works => "works".to_owned(),
        Effect::None(why) => format!("**no effect**: {why}{except}"),
        Effect::Refused(why) => format!("**refused**: {why}{except}"),
    };
    let _ = writeln!(out, "| {name} | {default} | {} | {} |", cell(flag.help), cell(&here));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_the_table() {
        expect_test::expect_file!["../../../../docs/flags.md"].assert_eq(&super::flags_document());
    }
}
