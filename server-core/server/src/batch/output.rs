//! The output: one answer a line, in the order of the input.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::call::{Call, answers};
use super::input::Lines;

/// Written behind what is there; nobody else writes meanwhile.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    /// Opens the output of a new run, or of one that was cut short, and leaves `input` behind the lines that have their
    /// answers. Returns how many these are. A last line that is not whole is cut off.
    ///
    /// # Errors
    /// The file cannot be written, somebody else writes it, or what is in it does not answer this input.
    pub(super) fn resume(path: &Path, input: &mut Lines) -> anyhow::Result<(Self, u64)> {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open().with_context(|| format!("--output: cannot write '{}'", path.display()))?;
        if !file.metadata()?.is_file() {
            bail!("--output: '{}' is not a file", path.display());
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                bail!("--output: another process is writing '{}': wait for its end", path.display())
            }
            // Some file systems of clusters have no locks.
            Err(error) => tracing::warn!("'{}' cannot be locked: {error}", path.display()),
        }
        let (done, whole) = answered_lines(path, &file, input)?;
        file.set_len(whole).with_context(|| format!("--output: cannot write '{}'", path.display()))?;
        file.seek(SeekFrom::Start(whole))?;
        Ok((Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 18, file) }, done))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&mut self, line: &str) -> anyhow::Result<()> {
        let written = self.file.write_all(line.as_bytes());
        written.with_context(|| self.trouble())
    }

    /// Hands what was written to the system: it outlives this process then.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        let flushed = self.file.flush();
        flushed.with_context(|| self.trouble())
    }

    /// The file, to be written to its disk beside us.
    pub(super) fn disk(&self) -> anyhow::Result<File> {
        self.file.get_ref().try_clone().with_context(|| self.trouble())
    }

    fn trouble(&self) -> String {
        format!("cannot write '{}'; what is in it is kept, the same command goes on", self.path.display())
    }
}

/// How many lines have their answers, and how many bytes these are.
fn answered_lines(path: &Path, file: &File, input: &mut Lines) -> anyhow::Result<(u64, u64)> {
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let (mut done, mut whole, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        let read = read.with_context(|| format!("--output: cannot read '{}'", path.display()))?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok((done, whole));
        }
        let place = format!("--output: '{}', line {}", path.display(), done + 1);
        let Ok(told) = answers(&line) else {
            bail!("{place} is no answer of a batch: give another file, or cut this one before that line");
        };
        let Some(asked) = input.next()? else {
            bail!(
                "{place}: it has more answers than '{}' has lines: give another file",
                input.path().display()
            );
        };
        let asked_id = match Call::read(&asked) {
            Ok(call) => Some(call.custom_id),
            Err(unusable) => unusable.custom_id,
        };
        if told != asked_id {
            let shown = |id: &Option<String>| id.as_ref().map_or("none".to_owned(), |id| format!("'{id}'"));
            bail!(
                "{place} answers custom_id {}, but line {} of '{}' has {}: it is of another input; give another file",
                shown(&told),
                asked.number,
                input.path().display(),
                shown(&asked_id)
            );
        }
        done += 1;
        whole += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::{answered, refused};
    use super::super::input::tests::lines;
    use super::*;
    use trireme_http::OpenAiAnswer;

    fn input(count: u64) -> String {
        let line = |n| match n {
            // Lines that are no calls have answers, too.
            3 => "no JSON\n".to_owned(),
            n => {
                format!("{{\"custom_id\":\"c{n}\",\"method\":\"POST\",\"url\":\"/v1/x\",\"body\":{{}}}}\n\n")
            }
        };
        (1..=count).map(line).collect()
    }

    fn output(count: u64, input: &mut Lines) -> Vec<String> {
        let answer = OpenAiAnswer { status: 200, body: "{\"text\": \"ü\"}".to_owned() };
        (1..=count)
            .map(|n| match Call::read(&input.next().unwrap().unwrap()) {
                Ok(call) => answered(n, &call.custom_id, "r", &answer),
                Err(unusable) => refused(n, &unusable),
            })
            .collect()
    }

    #[test]
    fn a_run_that_was_cut_at_any_byte_goes_on_behind_its_last_whole_line() {
        let (folder, mut all) = lines(input(6).as_bytes());
        let whole = output(6, &mut all);
        let text = whole.concat().into_bytes();
        let path = folder.path().join("out.jsonl");
        for cut in 0..=text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let mut input = Lines::open(&folder.path().join("in.jsonl")).unwrap();
            let (mut output, done) = Output::resume(&path, &mut input).unwrap();
            assert_eq!(done as usize, text[..cut].iter().filter(|byte| **byte == b'\n').count());
            assert_eq!(input.count_rest().unwrap(), 6 - done);
            whole.iter().skip(done as usize).for_each(|line| output.write(line).unwrap());
            output.flush().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), text, "cut at {cut}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_left_as_it_is() {
        for (text, why) in [
            ("hello\n", "line 1 is no answer of a batch"),
            (
                &output(2, &mut lines(input(2).replace("c2", "x").as_bytes()).1).concat(),
                "answers custom_id 'x', but line 3",
            ),
            (&output(3, &mut lines(input(3).as_bytes()).1).concat(), "more answers than"),
        ] {
            let (folder, mut input) = lines(input(2).as_bytes());
            let path = folder.path().join("out.jsonl");
            std::fs::write(&path, text).unwrap();
            let error = Output::resume(&path, &mut input).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn two_do_not_write_at_a_time() {
        let (folder, mut input) = lines(b"");
        let path = folder.path().join("out.jsonl");
        let first = Output::resume(&path, &mut input).unwrap();
        let error = Output::resume(&path, &mut input).unwrap_err();
        assert!(error.to_string().contains("another process is writing"), "{error:#}");
        drop(first);
        Output::resume(&path, &mut input).unwrap();
    }
}
