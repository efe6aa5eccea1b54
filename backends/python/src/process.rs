//! The process of an instance: its start, what it writes, its end.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use trireme_sdk::{Error, Host, Result};

use crate::outgoing::lock;

/// A line of the log; what is longer is broken.
const MAX_LINE: usize = 8 << 10;
/// How many last lines of standard error are kept, to explain an end.
const LAST_LINES: usize = 20;
/// How long a process that has ended the conversation may take to end itself.
const GRACE: Duration = Duration::from_secs(2);

/// A started process.
pub(crate) struct Process {
    child: Mutex<Option<Child>>,
    pid: Pid,
    /// Becomes readable when the process ends; absent on kernels that have no such thing.
    end: Option<OwnedFd>,
    minder: Mutex<Option<JoinHandle<()>>>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts `interpreter script` with `socket` as its standard input. What it writes goes to the log under `label`;
    /// when it ends, `hang_up` is called.
    pub(crate) fn start(
        (interpreter, script): (&Path, &Path),
        socket: UnixStream,
        (host, label): (&Host, &str),
        hang_up: impl FnOnce() + Send + 'static,
    ) -> Result<Arc<Self>> {
        let mut command = Command::new(interpreter);
        command.arg("-u").arg(script);
        command.stdin(OwnedFd::from(socket)).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: an interrupt from the terminal is for the server, and what the model starts ends with it.
        command.process_group(0);
        let spawned = command.spawn();
        // The parent's copy of the socket goes, so that the end of the process is the end of the conversation.
        drop(command);
        let mut child = spawned.map_err(|error| {
            Error::internal(format!(
                "cannot start the interpreter '{}': {error}. Install it, or name another one by the model's parameter \
                 EXECUTION_ENV_PATH or by --backend-config=python,interpreter=PATH",
                interpreter.display()
            ))
        })?;
        let pid = Pid::from_child(&child);
        let end = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        let minder = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), Some(stderr)) => {
                let output = Output {
                    stdout: Some(stdout),
                    stderr: Some(stderr),
                    end: end.as_ref().and_then(|end| end.try_clone().ok()),
                    host: host.clone(),
                    label: label.to_owned(),
                    last_lines: Arc::clone(&last_lines),
                };
                let mind = move || output.mind(hang_up);
                std::thread::Builder::new().name("python-log".to_owned()).spawn(mind).ok()
            }
            _ => None,
        };
        let process =
            Self { child: Mutex::new(Some(child)), pid, end, minder: Mutex::new(minder), last_lines };
        Ok(Arc::new(process))
    }

    /// Ends it, and what it has started, unless that has happened.
    pub(crate) fn kill(&self) {
        // Until it is reaped, nobody else can have its number.
        if lock(&self.child).is_some() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Waits until it has ended, for a moment, then ends it; how it went, and the last that it said.
    pub(crate) fn reap(&self) -> (Option<ExitStatus>, String) {
        if let Some(end) = &self.end {
            wait_readable(end, GRACE);
        }
        let status = {
            let mut child = lock(&self.child);
            let status = child.as_mut().and_then(|child| {
                let ended = child.try_wait().ok().flatten();
                // What it has started is in its group, whose number is taken as long as one of them lives.
                let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
                ended.or_else(|| child.wait().ok())
            });
            *child = None;
            status
        };
        if let Some(minder) = lock(&self.minder).take() {
            let _ = minder.join();
        }
        let lines: Vec<String> = lock(&self.last_lines).drain(..).collect();
        (status, lines.join("\n"))
    }
}

/// "was ended by signal 9", "ended with exit code 3".
pub(crate) fn how(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => format!("was ended by signal {signal}"),
        Some((_, Some(code))) => format!("ended with exit code {code}"),
        _ => "has ended".to_owned(),
    }
}

fn wait_readable(fd: &OwnedFd, timeout: Duration) {
    let timeout = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: 0 };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut fds, Some(&timeout)) {}
}

/// What a process writes, on its way to the log.
struct Output {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    end: Option<OwnedFd>,
    host: Host,
    label: String,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl Output {
    fn mind(mut self, hang_up: impl FnOnce()) {
        let (mut out, mut err) = (Lines::default(), Lines::default());
        let mut hang_up = Some(hang_up);
        // After the end of the process what is left in the pipes is read, and no more is waited for: others may have
        // inherited them.
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        while self.stdout.is_some() || self.stderr.is_some() {
            let places = [
                self.stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)),
                self.stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)),
                self.end.as_ref().filter(|_| hang_up.is_some()).map(|end| PollFd::new(end, PollFlags::IN)),
            ];
            let present = places.each_ref().map(Option::is_some);
            let mut fds: Vec<PollFd<'_>> = places.into_iter().flatten().collect();
            let timeout = hang_up.is_none().then_some(&at_once);
            match rustix::event::poll(&mut fds, timeout) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
                Ok(0) => break,
                Ok(_) => {}
            }
            let mut events = fds.iter().map(|fd| !fd.revents().is_empty());
            let ready = present.map(|there| there && events.next().unwrap_or(false));
            drop(fds);
            if ready[0] && !out.read(&mut self.stdout) {
                self.stdout = None;
            }
            if ready[1] && !err.read(&mut self.stderr) {
                self.stderr = None;
            }
            self.say(&mut out, &mut err);
            if ready[2]
                && let Some(hang_up) = hang_up.take()
            {
                hang_up();
            }
        }
        out.finish();
        err.finish();
        self.say(&mut out, &mut err);
        // Without a word of the end, the pipes are the best there is.
        if let Some(hang_up) = hang_up.take()
            && self.end.is_none()
        {
            hang_up();
        }
    }

    fn say(&self, out: &mut Lines, err: &mut Lines) {
        for line in out.whole.drain(..) {
            self.host.info(format_args!("{}: {line}", self.label));
        }
        for line in err.whole.drain(..) {
            self.host.warn(format_args!("{}: {line}", self.label));
            let mut last = lock(&self.last_lines);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
    }
}

/// Bytes that become lines.
#[derive(Default)]
struct Lines {
    part: Vec<u8>,
    whole: Vec<String>,
}

impl Lines {
    /// Takes what is there; false at the end.
    fn read(&mut self, pipe: &mut Option<impl Read>) -> bool {
        let mut chunk = [0; 4096];
        let Some(pipe) = pipe else { return false };
        match pipe.read(&mut chunk) {
            Ok(0) => return false,
            Ok(count) => self.push(&chunk[..count]),
            Err(error) => return error.kind() == std::io::ErrorKind::Interrupted,
        }
        true
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.part.len() == MAX_LINE {
                self.finish();
            }
            if *byte != b'\n' {
                self.part.push(*byte);
            }
        }
    }

    /// What is there is a line.
    fn finish(&mut self) {
        let line = std::mem::take(&mut self.part);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if !line.is_empty() {
            self.whole.push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines() {
        let mut lines = Lines::default();
        lines.push(b"one\ntw");
        lines.push(b"o\r\n\n");
        lines.push(&[b'x'; MAX_LINE + 1]);
        lines.finish();
        let lengths: Vec<usize> = lines.whole.iter().map(String::len).collect();
        assert_eq!(
            (&lines.whole[..2], lengths),
            (&["one".to_owned(), "two".to_owned()][..], vec![3, 3, MAX_LINE, 1])
        );
    }
}
