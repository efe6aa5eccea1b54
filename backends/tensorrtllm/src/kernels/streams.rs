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

    /// What becomes of its sums; `rotates`: whether rotation is part of it.
    pub fn kind(self, rotates: bool) -> StreamKind {
        match self {
            Self::Qkv if rotates => StreamKind::Rope,
            Self::Qkv => StreamKind::Store,
            Self::Output | Self::Down => StreamKind::Add,
            Self::GateUp => StreamKind::SiluMul,
        }
    }
}

/// Kinds of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Of 128 outputs, two a multiprocessor.
    Wide,
    /// Of 128 outputs, one a multiprocessor, with twice as many steps of k on their way.
    Deep,
    /// Of 64 outputs, two a multiprocessor.
    Narrow,
}

impl Form {
    pub const ALL: [Self; 3] = [Self::Wide, Self::Deep, Self::Narrow];

    /// Outputs that a block multiplies.
    pub fn width(self) -> usize {
        if self == Self::Narrow { 64 } else { 128 }
    }

    /// Threads of a block: a warpgroup for 64 outputs, and a warp that copies.
    pub fn threads(self) -> usize {
        2 * self.width() + 32
    }

    /// Blocks that a multiprocessor has at a time.
    pub fn blocks(self) -> usize {
        if self == Self::Deep { 1 } else { 2 }
    }

    /// Behind the name of a kernel.
    fn suffix(self) -> &'static str {
        match self {
            Self::Wide => "",
            Self::Narrow => "_narrow",
            Self::Deep => "_deep",
        }
    }
}

/// How the blocks of a product are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Blocks that share k.
    pub parts: usize,
    pub form: Form,
}

/// Blocks that may share k. Clusters of three often have the most multiprocessors: those of four and eight leave some of
/// each of the GPU's groups unused.
const PARTS: [usize; 6] = [1, 2, 3, 4, 6, 8];

impl Layout {
    /// All layouts of a product.
    pub fn all(kind: StreamKind) -> impl Iterator<Item = Self> + Clone {
        kind.forms().iter().flat_map(|&form| PARTS.map(|parts| Self { parts, form }))
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
}

impl StreamKind {
    const ALL: [Self; 5] = [Self::Store, Self::StoreF32, Self::Add, Self::SiluMul, Self::Rope];

    /// Bytes that a block has for a row beside what is on its way: a scale, and with rotation where the row goes.
    fn row_bytes(self) -> usize {
        if self == Self::Rope { 12 } else { 4 }
    }

    fn name(self) -> &'static str {
        ["store", "store_f32", "add", "silu_mul", "rope"][self as usize]
    }

    /// The forms that there are, the usual one first. `Deep` and `Narrow` are for where blocks would be few; a block of 64
    /// outputs has no pairs of gate and up, and no heads.
    pub fn forms(self) -> &'static [Form] {
        match self {
            Self::Store | Self::StoreF32 | Self::SiluMul => &[Form::Wide],
            Self::Add => &[Form::Deep, Form::Narrow],
            Self::Rope => &[Form::Deep],
        }
    }

    /// Outputs that a block writes, or with SiLU the products.
    pub fn outputs(self, form: Form) -> usize {
        if self == Self::SiluMul { form.width() / 2 } else { form.width() }
    }
}

/// Whether a row's part of a block is whole heads: where it is not, rotation is a launch of its own.
pub fn holds_heads(head_dim: usize) -> bool {
    Form::Deep.width().is_multiple_of(head_dim)
}

/// Sums of squares that a row has room for: `SQUARES` of the kernels.
pub const SQUARES: usize = 512;

/// Bytes of shared memory that a multiprocessor has, and that each block takes beside its own.
const SHARED: usize = 228 << 10;
const RESERVED: usize = 1 << 10;

/// Most steps of k on their way.
const MOST_STAGES: usize = 12;

/// A form of the kernels: up to `rows` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSize {
    pub rows: usize,
}

const SIZES: [StreamSize; 7] = [
    StreamSize { rows: 8 },
    StreamSize { rows: 16 },
    StreamSize { rows: 32 },
    StreamSize { rows: 64 },
    StreamSize { rows: 96 },
    StreamSize { rows: 112 },
    StreamSize { rows: 128 },
];

impl StreamSize {
    /// Number of sizes.
    pub const COUNT: usize = SIZES.len();

    /// All sizes, from the smallest.
    pub const ALL: [Self; Self::COUNT] = SIZES;

    /// Rows of the largest.
    pub const MOST: usize = SIZES[Self::COUNT - 1].rows;

    /// The smallest size that holds so many rows: its number and itself.
    pub fn of(rows: usize) -> Option<(usize, Self)> {
        SIZES.into_iter().enumerate().find(|(_, size)| rows <= size.rows)
    }

    /// Bytes of a step of 64 along k.
    fn stage(self, form: Form) -> usize {
        (form.width() + self.rows) * 128
    }

    /// Steps of k on their way, each with two barriers: as many as there is room for beside the rows' bytes. `stages` of the
    /// kernels.
    fn stages(self, kind: StreamKind, form: Form) -> usize {
        let room = SHARED / form.blocks() - RESERVED - self.rows * kind.row_bytes();
        (room / (self.stage(form) + 16)).min(MOST_STAGES)
    }

    /// Shared memory of a block.
    pub fn shared_bytes(self, kind: StreamKind, form: Form) -> usize {
        self.stages(kind, form) * (self.stage(form) + 16) + self.rows * kind.row_bytes()
    }
}

/// Whether `parts` blocks can share `steps` of k where `tiles` blocks are a product: they must find places at once, and
/// each have some steps.
pub fn can_share(parts: usize, form: Form, tiles: usize, steps: usize, multiprocessors: usize) -> bool {
    parts == 1 || parts * tiles <= form.blocks() * multiprocessors && steps >= 2 * parts
}

/// The kernels, by size, kind and form.
#[derive(Clone, Copy)]
pub struct Streams([[[Option<Function>; Form::ALL.len()]; StreamKind::ALL.len()]; SIZES.len()]);

impl Streams {
    pub(super) fn load(of: &impl Fn(&str, &str) -> Result<Function>) -> Result<Self> {
        let mut all = [[[None; Form::ALL.len()]; StreamKind::ALL.len()]; SIZES.len()];
        for (size, of_size) in SIZES.into_iter().zip(&mut all) {
            for (kind, of_kind) in StreamKind::ALL.into_iter().zip(of_size) {
                for &form in kind.forms() {
                    let name = format!("stream{}_{}{}", size.rows, kind.name(), form.suffix());
                    let kernel = of("linear_sm90", &name)?;
                    kernel.allow_shared(size.shared_bytes(kind, form))?;
                    of_kind[form as usize] = Some(kernel);
                }
            }
        }
        Ok(Self(all))
    }

    pub fn function(&self, size: usize, kind: StreamKind, form: Form) -> Option<Function> {
        self.0[size][kind as usize][form as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_blocks_fit_on_a_multiprocessor_as_are_said_to() {
        for (size, kind) in StreamSize::ALL.into_iter().flat_map(|s| StreamKind::ALL.map(|kind| (s, kind))) {
            for &form in kind.forms() {
                assert!(
                    form.blocks() * (size.shared_bytes(kind, form) + RESERVED) <= SHARED,
                    "{size:?} {form:?}"
                );
                assert!(size.stages(kind, form) >= 3, "{size:?} {form:?}");
                // The sums take the place of what was on its way.
                let sums = size.rows * (form.width() + 4) * 4;
                assert!(sums <= size.stages(kind, form) * size.stage(form), "{size:?} {form:?}");
            }
        }
        let of = |rows| StreamSize::of(rows).map(|(_, size)| size.rows);
        assert_eq!((of(1), of(17), of(128), of(StreamSize::MOST + 1)), (Some(8), Some(32), Some(128), None));
    }

    #[test]
    fn blocks_that_share_find_places_at_once() {
        assert!(can_share(1, Form::Wide, 1002, 64, 132) && can_share(8, Form::Wide, 32, 64, 132));
        assert!(!can_share(2, Form::Wide, 224, 64, 132) && !can_share(8, Form::Wide, 16, 8, 132));
        assert!(!can_share(8, Form::Deep, 32, 64, 132) && can_share(4, Form::Deep, 32, 64, 132));
    }
}
