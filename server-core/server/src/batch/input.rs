//! The lines of the input.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;

/// The longest line: a body of the size that the server takes, and what is around it.
pub(super) const MAX_LINE: usize = (64 << 20) + (64 << 10);

/// A line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// In the file, from 1.
    pub(super) number: u64,
    /// `None` if it is longer than [`MAX_LINE`].
    pub(super) text: Option<Bytes>,
}

/// Reads lines one after the other.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || -> anyhow::Result<File> {
            let file = File::open(path)?;
            if !file.metadata()?.is_file() {
                bail!("it is not a file");
            }
            Ok(file)
        };
        let file = open().with_context(|| format!("--input: cannot read '{}'", path.display()))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(1 << 18, file), number: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next line that is not blank.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Line>> {
        let path = &self.path;
        loop {
            let mut text = Vec::new();
            let read = self.file.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut text);
            let read = read.with_context(|| format!("cannot read '{}'", path.display()))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read > MAX_LINE && text.last() != Some(&b'\n') {
                self.file.skip_until(b'\n').with_context(|| format!("cannot read '{}'", path.display()))?;
                return Ok(Some(Line { number: self.number, text: None }));
            }
            // A mark of byte order stands before the first line of files from some editors.
            let text = text.strip_prefix(b"\xEF\xBB\xBF").filter(|_| self.number == 1).unwrap_or(&text);
            let text = text.trim_ascii();
            if !text.is_empty() {
                return Ok(Some(Line { number: self.number, text: Some(Bytes::copy_from_slice(text)) }));
            }
        }
    }

    /// How many lines are still to come. Reads on and comes back.
    pub(super) fn count_rest(&mut self) -> anyhow::Result<u64> {
        let (at, number) = (self.file.stream_position()?, self.number);
        let mut count = 0;
        while self.next()?.is_some() {
            count += 1;
        }
        self.file.seek(SeekFrom::Start(at))?;
        self.number = number;
        Ok(count)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::batch) fn lines(text: &[u8]) -> (tempfile::TempDir, Lines) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        std::fs::write(&path, text).unwrap();
        let lines = Lines::open(&path).unwrap();
        (folder, lines)
    }

    fn all(lines: &mut Lines) -> Vec<(u64, Option<String>)> {
        let text = |line: Line| line.text.map(|text| String::from_utf8_lossy(&text).into_owned());
        std::iter::from_fn(|| lines.next().unwrap()).map(|line| (line.number, text(line))).collect()
    }

    #[test]
    fn blank_lines_do_not_count_but_have_their_numbers() {
        let (_folder, mut lines) = lines("\u{feff}a\r\n\n  \nb\nc".as_bytes());
        assert_eq!(lines.count_rest().unwrap(), 3);
        let some = |number, text: &str| (number, Some(text.to_owned()));
        assert_eq!(all(&mut lines), [some(1, "a"), some(4, "b"), some(5, "c")]);
        assert_eq!(lines.count_rest().unwrap(), 0);
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_the_next_one_is_read() {
        let long = vec![b'x'; MAX_LINE + 10];
        let exact = vec![b'y'; MAX_LINE];
        let (_folder, mut lines) = lines(&[&long[..], b"\n", &exact[..], b"\nb\n"].concat());
        assert_eq!(lines.count_rest().unwrap(), 3);
        assert_eq!(lines.next().unwrap().unwrap(), Line { number: 1, text: None });
        assert_eq!(lines.next().unwrap().unwrap().text.unwrap().len(), MAX_LINE);
        assert_eq!(all(&mut lines), [(3, Some("b".to_owned()))]);
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("none")] {
            let error = Lines::open(&path).map(drop).unwrap_err();
            assert!(error.to_string().starts_with("--input: cannot read '"), "{error:#}");
        }
    }
}
