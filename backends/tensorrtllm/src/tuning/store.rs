//! Where tables come from and go to: a plan, and files of a folder.

use std::fs;
use std::io::{Read, Write};
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
    File(PathBuf),
}

/// What became of a table, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub origin: Origin,
    /// Things that were timed because no table had them.
    pub timed: usize,
    /// Where they are kept now.
    pub written: Option<PathBuf>,
    /// What is wrong with tables that were passed over, or with the folder; a sentence each.
    pub notes: Vec<String>,
}

impl Store {
    /// The plan's table, else the folder's, else an empty one.
    pub fn read(&self, key: &Key) -> (Table, Report) {
        let mut report = Report { origin: Origin::Timed, timed: 0, written: None, notes: Vec::new() };
        if let Some(bytes) = &self.plan {
            match Table::decode(bytes, key) {
                Ok(table) => return (table, Report { origin: Origin::Plan, ..report }),
                Err(why) => report.notes.push(format!("the plan's tuning table is passed over: it {why}")),
            }
        }
        let Some(file) = self.folder.as_ref().map(|folder| folder.join(key.file_name())) else {
            return (Table::default(), report);
        };
        let found = match read_limited(&file) {
            Ok(None) => return (Table::default(), report),
            Ok(Some(bytes)) => Table::decode(&bytes, key),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        match found {
            Ok(table) => (table, Report { origin: Origin::File(file), ..report }),
            Err(why) => {
                report.notes.push(format!("the tuning table {} is passed over: it {why}", file.display()));
                (Table::default(), report)
            }
        }
    }

    /// Keeps a table that has grown. A folder that cannot be written is a note: the next load times again.
    pub fn write(&self, key: &Key, table: &Table, report: &mut Report) {
        let Some(folder) = self.folder.as_ref().filter(|_| report.timed > 0) else { return };
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

/// Whole or not at all: two models may write at once.
fn put(folder: &Path, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut partial = tempfile::NamedTempFile::new_in(folder)?;
    partial.write_all(bytes)?;
    partial.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{ModelShape, Products, Way, WayEntry};
    use super::*;

    fn key() -> Key {
        let model = ModelShape {
            layers: 1,
            hidden: 64,
            intermediate: 64,
            heads: 1,
            kv_heads: 1,
            head_dim: 64,
            vocab: 8,
            head_norms: false,
        };
        Key {
            device: "NVIDIA A100-SXM4-80GB".into(),
            capability: (8, 0),
            multiprocessors: 108,
            driver: 13000,
            cublaslt: 130_100,
            kernels: "k".into(),
            model,
        }
    }

    fn table(us: f32) -> Table {
        let times = vec![(Way::Few, us)];
        Table { ways: vec![WayEntry { rows: 8, products: Products::Head, times }], ..Table::default() }
    }

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
