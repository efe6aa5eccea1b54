//! What a load chooses: entries that were kept, and new ones, which one model of a GPU times after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Key, Origin, Report, Store, Table};

/// Which of a GPU's models times now. GPUs of which there are more share with another one.
static TURNS: [Mutex<()>; 64] = [const { Mutex::new(()) }; 64];

/// A load's choices.
pub struct Session<'a> {
    /// Where they are kept, and for what; nowhere without it.
    kept: Option<(&'a Store, &'a Key)>,
    gpu: usize,
    table: Table,
    report: Report,
    turn: Option<MutexGuard<'static, ()>>,
}

impl<'a> Session<'a> {
    /// Begins with what was kept.
    pub fn new(store: &'a Store, key: &'a Key, gpu: usize) -> Self {
        let (table, report) = store.read(key);
        Self { kept: Some((store, key)), gpu, table, report, turn: None }
    }

    /// Begins with nothing and keeps nothing.
    pub fn unkept(gpu: usize) -> Self {
        Self { kept: None, gpu, table: Table::default(), report: Report::default(), turn: None }
    }

    /// What is kept of a thing. Where it is nothing, the caller times it: this returns when no other model of the process
    /// does so on this GPU, and looks once more then, as the other one may have been of the same sizes.
    pub fn find<T>(&mut self, look: impl Fn(&Table) -> Option<T>) -> Option<T> {
        look(&self.table).or_else(|| {
            self.wait();
            look(&self.table)
        })
    }

    /// What is kept of a thing; nobody waits.
    pub fn look<T>(&self, look: impl Fn(&Table) -> Option<T>) -> Option<T> {
        look(&self.table)
    }

    /// Returns when no other model of the process times anything on this GPU; none does until the end of this session.
    pub fn wait(&mut self) {
        if self.turn.is_some() {
            return;
        }
        self.turn = Some(TURNS[self.gpu % TURNS.len()].lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((store, key)) = self.kept {
            let (found, report) = store.read(key);
            if self.table.add(found) {
                self.report.origin = report.origin;
            }
        }
    }

    /// Something was timed. Where its rounds differ much the GPU had other work: then it holds for this load only.
    pub fn timed(&mut self, steady: bool, put: impl FnOnce(&mut Table)) {
        self.report.timed += 1;
        if steady {
            put(&mut self.table);
        } else {
            self.report.unsteady += 1;
        }
    }

    /// A thing was left to what is known of a larger size.
    pub fn left(&mut self) {
        self.report.left += 1;
    }

    /// Keeps what is new.
    pub fn end(mut self) -> Report {
        let Report { unsteady, timed, .. } = self.report;
        if unsteady > 0 {
            self.report.notes.push(format!(
                "{unsteady} of {timed} choices of kernels were timed while the GPU had other work: their rounds differ by \
                 more than 10 %; they hold for this load and are not kept"
            ));
        }
        if let Some((store, key)) = self.kept {
            store.write(key, &self.table, &mut self.report);
        }
        // What is written is what the next one finds.
        drop(self.turn.take());
        self.report
    }
}

impl Default for Report {
    fn default() -> Self {
        Self { origin: Origin::Timed, timed: 0, unsteady: 0, left: 0, written: None, notes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::TryLockError;

    use super::super::testing::{key, table, ways};
    use super::*;

    fn is_free(gpu: usize) -> bool {
        !matches!(TURNS[gpu].try_lock(), Err(TryLockError::WouldBlock))
    }

    #[test]
    fn one_model_of_a_gpu_times_after_the_other_and_takes_what_that_has_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key) = (Store { plan: None, folder: Some(dir.path().into()) }, key());
        let mut first = Session::new(&store, &key, 41);
        // Who finds everything waits for nobody.
        assert!(is_free(41));
        assert_eq!(first.find(ways), None);
        assert!(!is_free(41) && is_free(42));
        let second = std::thread::scope(|scope| {
            let (has_read, read) = std::sync::mpsc::channel();
            let (store, key) = (&store, &key);
            let second = scope.spawn(move || {
                let mut second = Session::new(store, key, 41);
                has_read.send(()).unwrap();
                let found = second.find(ways);
                (found, second.end())
            });
            read.recv().unwrap();
            first.timed(true, |kept| *kept = table(3.0));
            assert!(first.end().written.is_some());
            second.join().unwrap()
        });
        assert_eq!(second.0, ways(&table(3.0)));
        assert!(second.1.timed == 0 && matches!(second.1.origin, Origin::File(_)), "{second:?}");
        assert!(is_free(41));
    }

    #[test]
    fn what_other_work_has_disturbed_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key) = (Store { plan: None, folder: Some(dir.path().into()) }, key());
        let mut session = Session::new(&store, &key, 43);
        session.timed(false, |_| panic!("it is kept"));
        let report = session.end();
        assert_eq!((report.timed, report.unsteady, report.written), (1, 1, None));
        assert!(
            report.notes[0].starts_with("1 of 1 choices of kernels were timed while"),
            "{:?}",
            report.notes
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
