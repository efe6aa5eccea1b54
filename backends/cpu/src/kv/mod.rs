//! Keys and values of many sequences: a [`KvPool`] of fixed blocks, and for each sequence a table of the blocks that
//! hold its positions, in order. Position `p` lies in the table's entry `p / BLOCK_TOKENS`.

mod cache;
mod pool;

pub use cache::KvCache;
pub(crate) use pool::{KvPool, KvVectors, untouched};

/// Positions of a block: a multiple of the kernels' sixteen lanes, and a whole share of what attention takes at once.
///
/// Small enough that little memory is held beyond a sequence's end and short prefixes are shared; large enough that
/// keys and values of a head are read in pieces of kilobytes.
pub(crate) const BLOCK_TOKENS: usize = 32;

/// Largest head that models may have.
pub(crate) const MAX_HEAD_DIM: usize = 256;

/// Element type of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// Half precision: the default, and what halves the bytes that a long context reads.
    #[default]
    F16,
    F32,
}

impl KvDtype {
    /// As configurations spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Sizes of the keys and values of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) dtype: KvDtype,
}

impl KvShape {
    /// Bytes of a block, all layers and heads together; `None` if that is more than a number can say.
    pub(crate) fn block_bytes(&self) -> Option<usize> {
        let elements = [self.kv_heads, self.head_dim, 2 * BLOCK_TOKENS, self.dtype.bytes()];
        elements.into_iter().try_fold(self.layers, usize::checked_mul)
    }
}
