//! What a library says before it computes anything.

use super::{Verdict, pass};
use crate::subject::Subject;

pub(super) fn probe_and_layout(subject: &Subject) -> Verdict {
    let library = &subject.library;
    let (name, version, sdk) = (library.name(), library.version(), library.sdk());
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(format!("the name '{name}' has something else than letters, digits, '_' and '-'"));
    }
    if version.is_empty() || sdk.is_empty() {
        return Err("the probe does not say the version, or what the library was built with".to_owned());
    }
    let info = library.info();
    if !info.cpu && !info.gpu {
        return Err("info names no device that the backend runs on".to_owned());
    }
    if !subject.backend.extension("nothing/1").is_null() {
        return Err("BackendVtable.extension gives a table for an extension that does not exist".to_owned());
    }
    let record =
        if library.has_layout_record() { "layout compared" } else { "no layout record, sizes compared" };
    pass(format!("{name} {version}, built with {sdk}; {record}"))
}
