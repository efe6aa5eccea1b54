//! The table itself, and its file.

use serde::{Deserialize, Serialize};
use trireme_llm::plan::{open_tuning, seal_tuning};

use super::{Key, ModelShape};
use crate::gemm::Kind;
use crate::kernels::{Layout, Place, StreamSize, holds_heads};

/// Most entries of a kind.
const MAX_ENTRIES: usize = 1024;

/// Which kernels compute a step's products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Own ones that read weights through Hopper's copy engine; norms, rotation and activations are in them.
    Stream,
    /// As `Library`, but gate, up and the activation are one own product on Hopper's tensor cores.
    Gated,
    /// Own ones of at most 16 rows, likewise.
    Few,
    /// cuBLASLt's, between launches for norms, rotation and activations.
    Library,
}

/// What is chosen at once: what one product leaves, the next one reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// Those of a decode step's layers, all of them and with attention.
    Layers,
    Head,
    /// The layers' of steps with more rows than any decode step: four layers' products alone.
    Prompts,
}

/// cuBLASLt's algorithm for products of up to `m` rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmEntry {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub kind: Kind,
    /// As the library has it. It is never given back to the library: it only says which of its own proposals is meant.
    pub algorithm: [u64; 8],
    pub microseconds: f32,
}

/// The layout of an own product in the form for `rows` rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutEntry {
    pub rows: usize,
    pub place: Place,
    pub n: usize,
    pub k: usize,
    pub layout: Layout,
    /// Of the layers that were timed, with all they launch.
    pub microseconds: f32,
}

/// The fastest run of each way for a step padded to `rows`. Which is taken follows from the times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WayEntry {
    pub rows: usize,
    pub products: Products,
    /// Microseconds, of what `products` says.
    pub times: Vec<(Way, f32)>,
}

/// All that was timed for a [`Key`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub algorithms: Vec<AlgorithmEntry>,
    pub layouts: Vec<LayoutEntry>,
    pub ways: Vec<WayEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// First, and by this name: a plan keeps tables apart by it.
    device: String,
    key: Key,
    algorithms: Vec<AlgorithmEntry>,
    layouts: Vec<LayoutEntry>,
    ways: Vec<WayEntry>,
}

impl Table {
    /// The file of this table.
    pub fn encode(&self, key: &Key) -> Vec<u8> {
        let file = File {
            device: key.device.clone(),
            key: key.clone(),
            algorithms: self.algorithms.clone(),
            layouts: self.layouts.clone(),
            ways: self.ways.clone(),
        };
        // Numbers, texts and lists always have a JSON form.
        seal_tuning(&serde_json::to_string(&file).unwrap_or_default())
    }

    /// A file's table.
    ///
    /// # Errors
    /// Why it is of no use here: another thing, damaged, of another GPU or model, or with values that cannot be.
    pub fn decode(file: &[u8], key: &Key) -> Result<Self, String> {
        let body = open_tuning(file).map_err(|e| e.to_string())?;
        let file: File = serde_json::from_slice(body).map_err(|e| format!("is malformed: {e}"))?;
        if let Some(why) = key.differs_from(&file.key) {
            return Err(why);
        }
        let table = Self { algorithms: file.algorithms, layouts: file.layouts, ways: file.ways };
        table.check(&key.model).map_err(|e| format!("is malformed: {e}"))?;
        Ok(table)
    }

    fn check(&self, model: &ModelShape) -> Result<(), String> {
        if self.algorithms.len().max(self.layouts.len()).max(self.ways.len()) > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} entries of a kind"));
        }
        let a_time = |us: f32| us.is_finite() && us > 0.0;
        for entry in &self.layouts {
            let layout = entry.layout;
            let known = StreamSize::ALL.iter().any(|size| size.rows == entry.rows)
                && Layout::all(entry.place.kind(holds_heads(model.head_dim))).any(|other| other == layout);
            let sizes = size_of(model, entry.place) == (entry.n, entry.k);
            if !known || !sizes || !a_time(entry.microseconds) {
                return Err(format!("the layout {entry:?}"));
            }
        }
        for entry in &self.ways {
            if entry.times.len() > 3 || !entry.times.iter().all(|(_, us)| a_time(*us)) {
                return Err(format!("the times {entry:?}"));
            }
        }
        match self.algorithms.iter().find(|entry| !a_time(entry.microseconds)) {
            Some(entry) => Err(format!("the algorithm {entry:?}")),
            None => Ok(()),
        }
    }

    pub fn algorithm(&self, m: usize, n: usize, k: usize, kind: Kind) -> Option<&AlgorithmEntry> {
        self.algorithms.iter().find(|e| (e.m, e.n, e.k, e.kind) == (m, n, k, kind))
    }

    pub fn layout(&self, rows: usize, place: Place) -> Option<Layout> {
        self.layouts.iter().find(|e| e.rows == rows && e.place == place).map(|e| e.layout)
    }

    pub fn ways(&self, products: Products, rows: usize) -> Option<&[(Way, f32)]> {
        let found = self.ways.iter().find(|e| e.rows == rows && e.products == products);
        found.map(|e| e.times.as_slice())
    }

    /// Takes entries for what has none yet; whether there were any.
    pub(super) fn add(&mut self, other: Self) -> bool {
        let size = |t: &Self| t.algorithms.len() + t.layouts.len() + t.ways.len();
        let before = size(self);
        for entry in other.algorithms {
            if self.algorithm(entry.m, entry.n, entry.k, entry.kind).is_none() {
                self.algorithms.push(entry);
            }
        }
        for entry in other.layouts {
            if self.layout(entry.rows, entry.place).is_none() {
                self.layouts.push(entry);
            }
        }
        for entry in other.ways {
            if self.ways(entry.products, entry.rows).is_none() {
                self.ways.push(entry);
            }
        }
        size(self) > before
    }

    /// Takes the place of an entry for the same thing.
    pub fn put_algorithm(&mut self, entry: AlgorithmEntry) {
        let same = |e: &AlgorithmEntry| (e.m, e.n, e.k, e.kind) == (entry.m, entry.n, entry.k, entry.kind);
        self.algorithms.retain(|e| !same(e));
        self.algorithms.push(entry);
    }

    /// As [`Self::put_algorithm`].
    pub fn put_layout(&mut self, entry: LayoutEntry) {
        self.layouts.retain(|e| (e.rows, e.place) != (entry.rows, entry.place));
        self.layouts.push(entry);
    }

    /// As [`Self::put_algorithm`].
    pub fn put_ways(&mut self, entry: WayEntry) {
        self.ways.retain(|e| (e.rows, e.products) != (entry.rows, entry.products));
        self.ways.push(entry);
    }
}

/// Outputs and inputs of a layer's product.
fn size_of(m: &ModelShape, place: Place) -> (usize, usize) {
    match place {
        Place::Qkv => (m.qkv(), m.hidden),
        Place::Output => (m.hidden, m.heads * m.head_dim),
        Place::GateUp => (m.intermediate, m.hidden),
        Place::Down => (m.hidden, m.intermediate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::EarlyLaunch;
    use crate::kernels::Form;

    fn key() -> Key {
        let model = ModelShape {
            layers: 2,
            hidden: 256,
            intermediate: 512,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            vocab: 320,
            head_norms: false,
        };
        Key {
            device: "NVIDIA H200".into(),
            capability: (9, 0),
            multiprocessors: 132,
            driver: 13000,
            cublaslt: 130_100,
            kernels: "0123456789abcdef".into(),
            graphs: true,
            early: EarlyLaunch::ALL,
            timing: Key::TIMING,
            context: 1024,
            model,
        }
    }

    fn table() -> Table {
        let mut table = Table::default();
        table.put_algorithm(AlgorithmEntry {
            m: 128,
            n: 512,
            k: 256,
            kind: Kind::Add,
            algorithm: [1, 2, 3, 4, 5, 6, 7, u64::MAX],
            microseconds: 12.5,
        });
        let layout = Layout { parts: 4, form: Form::Deep };
        table.put_layout(LayoutEntry {
            rows: 8,
            place: Place::Down,
            n: 256,
            k: 512,
            layout,
            microseconds: 0.1,
        });
        let times = vec![(Way::Stream, 9111.0), (Way::Library, 8488.0)];
        table.put_ways(WayEntry { rows: 104, products: Products::Layers, times });
        table
    }

    #[test]
    fn what_is_written_is_read() {
        let file = table().encode(&key());
        assert_eq!(Table::decode(&file, &key()), Ok(table()));
        assert_eq!(trireme_llm::plan::tuning_device(&file).as_deref(), Ok("NVIDIA H200"));
    }

    #[test]
    fn a_table_of_something_else_says_what_differs() {
        let file = table().encode(&key());
        type Change = fn(&mut Key);
        let changes: [(&str, Change); 11] = [
            ("another device: \"NVIDIA H200\", here it is \"NVIDIA H100\"", |k| {
                k.device = "NVIDIA H100".into()
            }),
            ("another compute capability", |k| k.capability = (8, 0)),
            ("another multiprocessors: 132", |k| k.multiprocessors = 114),
            ("another driver's CUDA: 13000, here it is 13010", |k| k.driver = 13010),
            ("another cuBLASLt: 130100", |k| k.cublaslt = 130_200),
            ("another kernels: 0123456789ab, here it is f", |k| k.kernels = "f".into()),
            ("another use of graphs: true, here it is false", |k| k.graphs = false),
            ("another early launch", |k| k.early.late = false),
            ("another way of timing: 2, here it is 3", |k| k.timing += 1),
            ("another length of texts: 1024, here it is 64", |k| k.context = 64),
            ("another model", |k| k.model.layers = 3),
        ];
        for (said, change) in changes {
            let mut other = key();
            change(&mut other);
            let error = Table::decode(&file, &other).unwrap_err();
            assert!(error.contains(said), "{error}");
            assert_ne!(other.file_name(), key().file_name());
        }
    }

    #[test]
    fn damage_is_seen() {
        let file = table().encode(&key());
        for at in (0..file.len()).step_by(7) {
            let mut other = file.clone();
            other[at] ^= 4;
            assert!(Table::decode(&other, &key()).is_err(), "byte {at}");
            assert!(Table::decode(&file[..at], &key()).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let error = |change: fn(&mut Table)| {
            let mut table = table();
            change(&mut table);
            Table::decode(&table.encode(&key()), &key()).unwrap_err()
        };
        assert!(error(|t| t.layouts[0].layout.parts = 5).contains("the layout"));
        assert!(error(|t| t.layouts[0].rows = 20).contains("the layout"));
        assert!(error(|t| t.layouts[0].n = 257).contains("the layout"));
        // Gate and up have one form only.
        assert!(
            error(|t| (t.layouts[0].place, t.layouts[0].n, t.layouts[0].k) = (Place::GateUp, 512, 256))
                .contains("the layout")
        );
        assert!(error(|t| t.ways[0].times[0].1 = -1.0).contains("the times"));
        assert!(error(|t| t.algorithms[0].microseconds = 0.0).contains("the algorithm"));
        assert!(error(|t| t.ways = vec![t.ways[0].clone(); MAX_ENTRIES + 1]).contains("more than"));
        let unknown = seal_tuning(r#"{"device":"NVIDIA H200","other":1}"#);
        assert!(Table::decode(&unknown, &key()).unwrap_err().contains("is malformed"));
    }
}
