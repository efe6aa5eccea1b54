//! Where tables come from and go to: a plan, and files of a folder.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use trireme_llm::plan::MAX_TUNING_BYTES;

use super::{Key, Table};

/// Where a model's table may be.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// What the model's plan has for this device.
    pub plan: Option<Vec<u8>>,
    /// The folder whose files are read and written; none without one.
    pub folder: Option<PathBuf>,
}

/// Where the choices come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was kept.
    Timed,
    Plan,
    /// The file has what the plan lacks.
    PlanAndFile(PathBuf),
    File(PathBuf),
}

/// What became of a table, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub origin: Origin,
    /// Things that were timed because no table had them.
    pub timed: usize,
    /// Of these, such that the GPU had other work meanwhile; they are not kept.
    pub unsteady: usize,
    /// Things that were left to what is known of a larger size: there was no time for them.
    pub left: usize,
    /// Where they are kept now.
    pub written: Option<PathBuf>,
    /// What is wrong with tables that were passed over, or with the folder; a sentence each.
    pub notes: Vec<String>,
}

impl Store {
    /// The plan's table with what only the folder's has, else the folder's, else an empty one.
    pub fn read(&self, key: &Key) -> (Table, Report) {
        let (mut table, mut report) = (Table::default(), Report::default());
        if let Some(bytes) = &self.plan {
            match Table::decode(bytes, key) {
                Ok(found) => (table, report.origin) = (found, Origin::Plan),
                Err(why) => report.notes.push(format!("the plan's tuning table is passed over: it {why}")),
            }
        }
        let Some(file) = self.folder.as_ref().map(|folder| folder.join(key.file_name())) else {
            return (table, report);
        };
        let found = match read_limited(&file) {
            Ok(None) => return (table, report),
            Ok(Some(bytes)) => Table::decode(&bytes, key),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        match found {
            Ok(found) => {
                if table.add(found) {
                    let of_plan = report.origin == Origin::Plan;
                    report.origin = if of_plan { Origin::PlanAndFile(file) } else { Origin::File(file) };
                }
            }
            Err(why) => {
                report.notes.push(format!("the tuning table {} is passed over: it {why}", file.display()));
            }
        }
        (table, report)
    }

    /// Keeps a table that has grown. A folder that cannot be written is a note: the next load times again.
    pub fn write(&self, key: &Key, table: &Table, report: &mut Report) {
        let Some(folder) = self.folder.as_ref().filter(|_| report.timed > report.unsteady) else { return };
        let file = folder.join(key.file_name());
        match put(folder, &file, &table.encode(key)) {
            Ok(()) => report.written = Some(file),
            Err(error) => {
                report.notes.push(format!("the tuning table {} cannot be written: {error}", file.display()));
            }
        }
    }
}

/// `trireme/NAME` in the user's folder for caches; `None` where there is no such folder.
pub fn default_folder(name: &str) -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("trireme").join(name))
}

/// `None` if there is no such file. Of a longer one no more is read than is needed to see that it is too long.
fn read_limited(file: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match fs::File::open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_TUNING_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Whole or not at all: two models may write at once. Who may read it follows from the umask, as for any file: a temporary
/// one would be its owner's alone.
pub(crate) fn put(folder: &Path, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    let mut partial = builder.permissions(fs::Permissions::from_mode(0o644)).tempfile_in(folder)?;
    partial.write_all(bytes)?;
    partial.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{key, table};
    use super::super::{Products, Way, WayEntry};
    use super::*;

    #[test]
    fn the_plan_goes_before_the_folder_and_both_before_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made/when/needed");
        let mut store = Store { plan: None, folder: Some(folder.clone()) };
        let (empty, mut report) = store.read(&key());
        assert_eq!((empty, &report.origin, report.notes.len()), (Table::default(), &Origin::Timed, 0));
        // Nothing new: nothing is written.
        store.write(&key(), &table(1.0), &mut report);
        assert!(!folder.exists() && report.written.is_none());
        report.timed = 1;
        store.write(&key(), &table(1.0), &mut report);
        let file = report.written.clone().unwrap();
        assert!(
            file.file_name().unwrap().to_str().unwrap().starts_with("nvidia-a100-sxm4-80gb-"),
            "{file:?}"
        );
        let (found, report) = store.read(&key());
        assert_eq!((found, report.origin), (table(1.0), Origin::File(file)));
        store.plan = Some(table(2.0).encode(&key()));
        let (found, report) = store.read(&key());
        assert_eq!((found, report.origin, report.notes), (table(2.0), Origin::Plan, vec![]));
    }

    #[test]
    fn what_the_plan_lacks_is_taken_from_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store { plan: Some(table(2.0).encode(&key())), folder: Some(dir.path().into()) };
        // What a load with the plan has timed beside it, and another time for what the plan has.
        let layers = WayEntry { rows: 16, products: Products::Layers, times: vec![(Way::Library, 5.0)] };
        let mut both = table(9.0);
        both.put_ways(layers.clone());
        let mut report = Report { timed: 1, ..Report::default() };
        store.write(&key(), &both, &mut report);
        let file = report.written.unwrap();
        let (found, report) = store.read(&key());
        let mut expected = table(2.0);
        expected.put_ways(layers);
        assert_eq!(
            (found, report.origin, report.notes),
            (expected, Origin::PlanAndFile(file.clone()), vec![])
        );
        // A file that is damaged takes nothing from the plan.
        fs::write(&file, "").unwrap();
        let (found, report) = store.read(&key());
        assert_eq!((found, report.origin, report.notes.len()), (table(2.0), Origin::Plan, 1));
    }

    #[test]
    fn a_file_is_as_open_as_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        put(dir.path(), &dir.path().join("own"), b"x").unwrap();
        fs::write(dir.path().join("any"), b"x").unwrap();
        assert_eq!(mode(&dir.path().join("own")), mode(&dir.path().join("any")) & 0o644);
    }

    #[test]
    fn what_is_damaged_or_foreign_is_passed_over_with_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(key().file_name());
        let mut bytes = table(1.0).encode(&key());
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, &bytes).unwrap();
        let store = Store { plan: Some(b"TRIREMEP".to_vec()), folder: Some(dir.path().into()) };
        let (found, report) = store.read(&key());
        assert_eq!((found, &report.origin), (Table::default(), &Origin::Timed));
        assert_eq!(
            report.notes[0],
            "the plan's tuning table is passed over: it is no tuning table: it does not begin with 'trireme-tuning 1'"
        );
        assert!(
            report.notes[1].ends_with("is passed over: it is damaged: its checksum does not match"),
            "{report:?}"
        );
        // A file of another GPU under this one's name.
        let other = Key { device: "NVIDIA H200".into(), ..key() };
        fs::write(&file, table(1.0).encode(&other)).unwrap();
        let (_, report) = Store { plan: None, ..store.clone() }.read(&key());
        assert!(report.notes[0].contains("was timed with another device: \"NVIDIA H200\""), "{report:?}");
        fs::write(&file, vec![b'x'; MAX_TUNING_BYTES + 10]).unwrap();
        let (_, report) = Store { plan: None, ..store }.read(&key());
        assert!(report.notes[0].contains("the limit is"), "{report:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_note() {
        let dir = tempfile::tempdir().unwrap();
        let not_a_folder = dir.path().join("file");
        fs::write(&not_a_folder, "").unwrap();
        let store = Store { plan: None, folder: Some(not_a_folder) };
        let (_, mut report) = store.read(&key());
        report.notes.clear();
        report.timed = 1;
        store.write(&key(), &table(1.0), &mut report);
        assert!(report.written.is_none() && report.notes[0].contains("cannot be written"), "{report:?}");
    }
}
