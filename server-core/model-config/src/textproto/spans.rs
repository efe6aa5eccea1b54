use std::collections::BTreeMap;
use std::ops::Range;

/// Where a field stands in a message: names, numbers for the elements of lists, keys for those of maps:
/// `input.0.dims`, `parameters.threads`.
pub type Path = String;

/// From paths to places in the text, in bytes: of a field its name, of an element its first token.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    fields: BTreeMap<Path, Range<usize>>,
}

impl Spans {
    pub(super) fn insert(&mut self, path: Path, span: Range<usize>) {
        self.fields.entry(path).or_insert(span);
    }

    /// Puts what was found below a map entry under the entry's key; a value that is a message loses its `value` step,
    /// as the map holds it directly.
    pub(super) fn rename(&mut self, entry: &str, key: &str) {
        let prefix = format!("{entry}.");
        let found: Vec<Path> = self
            .fields
            .range(prefix.clone()..)
            .map(|(path, _)| path.clone())
            .take_while(|p| p.starts_with(&prefix))
            .collect();
        for path in found {
            let Some(span) = self.fields.remove(&path) else { continue };
            if let Some(rest) = path[prefix.len()..].strip_prefix("value.") {
                self.insert(format!("{key}.{rest}"), span);
            }
        }
    }

    /// The place of a field, or of the nearest field around it that is in the text.
    pub fn find(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if let Some(span) = self.fields.get(path) {
                return Some(span.clone());
            }
            path = &path[..path.rfind('.')?];
        }
    }
}
