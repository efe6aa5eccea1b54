//! The products of up to 128 rows on Hopper: `kernels/linear_sm90.cu`.

use serde::{Deserialize, Serialize};

use crate::device::Function;
use crate::error::Result;

/// Which of a layer's products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Qkv,
    Output,
    GateUp,
    Down,
}

impl Place {
    pub const ALL: [Self; 4] = [Self::Qkv, Self::Output, Self::GateUp, Self::Down];

    /// The kinds of blocks that there are for it.
    pub fn forms(self) -> &'static [Form] {
        match self {
            Self::Output | Self::Down => &[Form::Wide, Form::Narrow, Form::Deep],
            Self::Qkv => &[Form::Wide, Form::Deep],
            Self::GateUp => &[Form::Wide],
        }
    }
}

/// Kinds of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    Wide,
    /// Of 64 outputs.
    Narrow,
    /// One a multiprocessor.
    Deep,
}

/// How the blocks of a product are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Blocks that share k.
    pub parts: usize,
    pub form: Form,
}

impl Layout {
    /// All layouts of a product.
    pub fn all(place: Place) -> impl Iterator<Item = Self> + Clone {
        place.forms().iter().flat_map(|&form| [1, 2, 4, 8].map(|parts| Self { parts, form }))
    }

    /// Whether it is a layout of this product.
    pub fn is_one_of(self, place: Place) -> bool {
        Self::all(place).any(|layout| layout == self)
    }
}

/// What becomes of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Store,
    StoreF32,
    Add,
    SiluMul,
    Rope,
    /// As `Add`, with blocks of half as many outputs.
    AddNarrow,
    /// As `Add` and `Rope`, with one block a multiprocessor and twice as many stages.
    AddDeep,
    RopeDeep,
}

const NAMES: [&str; 8] =
    ["store", "store_f32", "add", "silu_mul", "rope", "add_narrow", "add_deep", "rope_deep"];

/// Sums of squares that a row has room for: `SQUARES` of the kernels.
pub const SQUARES: usize = 512;

/// Blocks on a multiprocessor.
const BLOCKS: usize = 2;

/// A form of the kernels: up to `rows` rows, `stages` steps of k on their way.
#[derive(Clone, Copy, Debug)]
pub struct StreamSize {
    pub rows: usize,
    stages: usize,
    narrow_stages: usize,
}

const SIZES: [StreamSize; 5] = [
    StreamSize { rows: 8, stages: 6, narrow_stages: 11 },
    StreamSize { rows: 16, stages: 6, narrow_stages: 10 },
    StreamSize { rows: 32, stages: 5, narrow_stages: 8 },
    StreamSize { rows: 64, stages: 4, narrow_stages: 6 },
    StreamSize { rows: 128, stages: 3, narrow_stages: 4 },
];

impl StreamKind {
    /// Outputs that a block multiplies.
    fn width(self) -> usize {
        if self == Self::AddNarrow { 64 } else { 128 }
    }

    /// Outputs that a block writes, or with SiLU the products.
    pub fn outputs(self) -> usize {
        if self == Self::SiluMul { 64 } else { self.width() }
    }

    /// Threads of a block: a warpgroup for 64 outputs, and a warp that copies.
    pub fn threads(self) -> usize {
        2 * self.width() + 32
    }
}

impl StreamSize {
    /// Number of sizes.
    pub const COUNT: usize = SIZES.len();

    /// All sizes, from the smallest.
    pub const ALL: [Self; Self::COUNT] = SIZES;

    /// The smallest size that holds so many rows: its number and itself.
    pub fn of(rows: usize) -> Option<(usize, Self)> {
        SIZES.into_iter().enumerate().find(|(_, size)| rows <= size.rows)
    }

    /// Shared memory of a block: the ring, two barriers a stage, a scale a row.
    pub fn shared_bytes(&self, kind: StreamKind) -> usize {
        let stages = match kind {
            StreamKind::AddNarrow => self.narrow_stages,
            StreamKind::AddDeep | StreamKind::RopeDeep => 2 * self.stages,
            _ => self.stages,
        };
        stages * ((kind.width() + self.rows) * 128 + 16) + self.rows * 4
    }
}

/// Whether `parts` blocks can share `steps` of k where `tiles` blocks are a product: they must find places at once, and
/// each have some steps.
pub fn can_share(parts: usize, tiles: usize, steps: usize, multiprocessors: usize) -> bool {
    parts == 1 || parts * tiles <= BLOCKS * multiprocessors && steps >= 2 * parts
}

/// The kernels, by size and kind.
#[derive(Clone, Copy)]
pub struct Streams([[Function; NAMES.len()]; SIZES.len()]);

impl Streams {
    pub(super) fn load(of: &impl Fn(&str, &str) -> Result<Function>) -> Result<Self> {
        use StreamKind::{Add, AddDeep, AddNarrow, Rope, RopeDeep, SiluMul, Store, StoreF32};
        let kernel = |size: &StreamSize, kind: StreamKind| -> Result<Function> {
            let function = of("linear_sm90", &format!("stream{}_{}", size.rows, NAMES[kind as usize]))?;
            function.allow_shared(size.shared_bytes(kind))?;
            Ok(function)
        };
        let row = |size: &StreamSize| -> Result<_> {
            let kinds = [Store, StoreF32, Add, SiluMul, Rope, AddNarrow, AddDeep, RopeDeep];
            let [a, b, c, d, e, f, g, h] = kinds.map(|kind| kernel(size, kind));
            Ok([a?, b?, c?, d?, e?, f?, g?, h?])
        };
        let [a, b, c, d, e] = SIZES.each_ref().map(row);
        Ok(Self([a?, b?, c?, d?, e?]))
    }

    pub fn function(&self, size: usize, kind: StreamKind) -> Function {
        self.0[size][kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_fit_on_a_multiprocessor() {
        for size in StreamSize::ALL {
            for kind in [StreamKind::Store, StreamKind::AddNarrow] {
                assert!(BLOCKS * (size.shared_bytes(kind) + 1024) <= 228 << 10, "{size:?}");
            }
            assert!(size.shared_bytes(StreamKind::AddDeep) + 1024 <= 228 << 10, "{size:?}");
        }
        assert_eq!(StreamSize::of(17).map(|(number, size)| (number, size.rows)), Some((2, 32)));
        assert!(StreamSize::of(129).is_none());
    }

    #[test]
    fn blocks_that_share_find_places_at_once() {
        assert!(can_share(1, 1002, 64, 132) && can_share(8, 32, 64, 132));
        assert!(!can_share(2, 224, 64, 132) && !can_share(8, 16, 8, 132));
    }
}
