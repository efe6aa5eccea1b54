use std::collections::BTreeMap;
use std::ops::Range;

/// Where a field stands in a message: names, numbers for the elements of lists, keys for those of maps:
/// `input.0.dims`, `parameters.threads`.
pub type Path = String;

/// From paths to places in the text, in bytes: of a field its name, of an element its first token.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    fields: BTreeMap<Path, Range<usize>>,
    repeated: Vec<(Path, Range<usize>)>,
}

impl Spans {
    pub(super) fn insert(&mut self, path: Path, span: Range<usize>) {
        self.fields.entry(path).or_insert(span);
    }

    /// As [`Spans::insert`], for a map entry: an earlier one of the same key is forgotten with all that is below it.
    pub(super) fn replace(&mut self, path: &str, span: Range<usize>) {
        let prefix = format!("{path}.");
        for below in self.below(&prefix) {
            self.fields.remove(&below);
        }
        self.fields.insert(path.to_owned(), span);
    }

    pub(super) fn note_repeated(&mut self, path: &str, span: Range<usize>) {
        self.repeated.push((path.to_owned(), span));
    }

    /// Map entries whose key had been given before.
    pub fn repeated(&self) -> &[(Path, Range<usize>)] {
        &self.repeated
    }

    fn below(&self, prefix: &str) -> Vec<Path> {
        let following = self.fields.range(prefix.to_owned()..).map(|(path, _)| path.clone());
        following.take_while(|path| path.starts_with(prefix)).collect()
    }

    /// Puts what was found below a map entry under the entry's key; a value that is a message loses its `value` step,
    /// as the map holds it directly.
    pub(super) fn rename(&mut self, entry: &str, key: &str) {
        let prefix = format!("{entry}.");
        for path in self.below(&prefix) {
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
