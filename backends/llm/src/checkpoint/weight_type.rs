//! Element types of weights on disk, and the reference way back to `f32`.

use half::{bf16, f16};

/// How the elements of a weight are stored, little-endian.
///
/// The quantised types hold blocks of 32 consecutive elements of one row:
/// ```text
/// Q8_0  34 bytes  | d: f16 | 32 x i8 q |                    w[i] = d * q[i]
/// Q4_0  18 bytes  | d: f16 | 16 x u8 |                      w[i] = d * (q[i] - 8)
/// Q4_1  20 bytes  | d: f16 | m: f16 | 16 x u8 |             w[i] = d * q[i] + m
/// ```
/// Of a 4-bit byte `j`, the low half is element `j` and the high half element `j + 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
}

impl WeightType {
    /// Elements that are stored together: 32 for quantised types, else 1.
    pub const fn block_elems(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
        }
    }

    /// Bytes of a row of `cols` elements. `cols` is a multiple of [`Self::block_elems`].
    pub const fn row_bytes(self, cols: usize) -> usize {
        cols / self.block_elems() * self.block_bytes()
    }

    /// Bytes of a tensor of this `shape` (outermost first), or `None` if the product overflows or the last
    /// dimension is not a whole number of blocks.
    pub fn tensor_bytes(self, shape: &[usize]) -> Option<usize> {
        let (&cols, outer) = shape.split_last().unwrap_or((&1, &[]));
        if cols % self.block_elems() != 0 {
            return None;
        }
        let row = (cols / self.block_elems()).checked_mul(self.block_bytes())?;
        outer.iter().try_fold(row, |n, &d| n.checked_mul(d))
    }

    /// Reference dequantisation of whole blocks: `out.len()` elements from `bytes`.
    ///
    /// # Panics
    /// If `bytes` does not hold exactly `out.len()` elements.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(out.len() % self.block_elems(), 0, "{self:?}: not a whole number of blocks");
        assert_eq!(bytes.len(), self.row_bytes(out.len()), "{self:?}: bytes do not match the elements");
        let blocks = bytes.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(self.block_elems()));
        match self {
            Self::F32 => blocks.for_each(|(b, w)| w[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Self::F16 => blocks.for_each(|(b, w)| w[0] = half(b, 0)),
            Self::BF16 => blocks.for_each(|(b, w)| w[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            Self::Q8_0 => blocks.for_each(|(b, w)| {
                let d = half(b, 0);
                for (w, &q) in w.iter_mut().zip(&b[2..]) {
                    *w = d * f32::from(q as i8);
                }
            }),
            Self::Q4_0 => blocks.for_each(|(b, w)| nibbles(&b[2..], w, half(b, 0), -8.0 * half(b, 0))),
            Self::Q4_1 => blocks.for_each(|(b, w)| nibbles(&b[4..], w, half(b, 0), half(b, 2))),
        }
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn nibbles(packed: &[u8], out: &mut [f32], scale: f32, offset: f32) {
    for (j, &byte) in packed.iter().enumerate() {
        out[j] = scale * f32::from(byte & 15) + offset;
        out[j + 16] = scale * f32::from(byte >> 4) + offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f16_bytes(v: f32) -> [u8; 2] {
        f16::from_f32(v).to_le_bytes()
    }

    #[test]
    fn blocks_decode_as_drawn() {
        let mut out = [0f32; 32];
        let q: Vec<u8> = (0..16u8).map(|j| j | ((15 - j) << 4)).collect();

        let q4_0 = [&f16_bytes(0.5)[..], &q].concat();
        WeightType::Q4_0.dequantize(&q4_0, &mut out);
        assert_eq!((out[0], out[15], out[16], out[31]), (-4.0, 3.5, 3.5, -4.0));

        let q4_1 = [&f16_bytes(0.5)[..], &f16_bytes(-1.0), &q].concat();
        WeightType::Q4_1.dequantize(&q4_1, &mut out);
        assert_eq!((out[0], out[15], out[16], out[31]), (-1.0, 6.5, 6.5, -1.0));

        let q8_0 =
            [&f16_bytes(2.0)[..], &(0..32u8).map(|j| (j as i8 - 16) as u8).collect::<Vec<_>>()].concat();
        WeightType::Q8_0.dequantize(&q8_0, &mut out);
        assert_eq!((out[0], out[31]), (-32.0, 30.0));
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(WeightType::Q4_1.tensor_bytes(&[3, 64]), Some(120));
        assert_eq!(WeightType::Q4_1.tensor_bytes(&[3, 33]), None);
        assert_eq!(WeightType::F32.tensor_bytes(&[usize::MAX, 2]), None);
        assert_eq!(WeightType::F32.tensor_bytes(&[]), Some(4));
    }
}
