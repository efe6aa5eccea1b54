use std::collections::BTreeMap;
use std::ops::Range;

/// Where a field stands in a message: names, and numbers for the elements of lists: `input.0.dims`.
pub type Path = String;

/// From paths to places in the text: the field's name, and its value.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    fields: BTreeMap<Path, Range<usize>>,
}

impl Spans {
    pub(super) fn insert(&mut self, path: Path, span: Range<usize>) {
        self.fields.entry(path).or_insert(span);
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
