//! What the products of up to 128 rows, and the launch that rotates behind others, are told.

/// `RopeArgs` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RopeArgs {
    pub bias: u64,
    pub q_norm: u64,
    pub k_norm: u64,
    pub angles: u64,
    pub row_slot: u64,
    pub row_position: u64,
    pub tables: u64,
    pub keys: u64,
    pub values: u64,
    pub table_width: i32,
    pub block_tokens: i32,
    pub q_heads: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    pub eps: f32,
}

impl RopeArgs {
    /// The same without the first rows.
    #[must_use]
    pub fn skipping(self, first: usize) -> Self {
        let skip = first as u64 * 4;
        Self { row_slot: self.row_slot + skip, row_position: self.row_position + skip, ..self }
    }
}

/// `StreamArgs` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct StreamArgs {
    pub out: u64,
    pub squares: u64,
    pub copy: u64,
    pub gain: u64,
    pub new_squares: u64,
    pub n: i32,
    pub k: i32,
    pub steps: i32,
    pub rows: i32,
    pub stride: i32,
    pub num_squares: i32,
    pub eps: f32,
    pub rope: RopeArgs,
}
