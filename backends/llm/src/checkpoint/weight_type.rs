//! Element types of weights on disk, and the reference way back to `f32`.

use half::{bf16, f16};

/// How the elements of a weight are stored, little-endian.
///
/// The quantised types hold blocks of 32 or 256 consecutive elements of one row:
/// ```text
/// Q8_0  34 bytes  | d: f16 | 32 x i8 q |                    w[i] = d * q[i]
/// Q4_0  18 bytes  | d: f16 | 16 x u8 |                      w[i] = d * (q[i] - 8)
/// Q4_1  20 bytes  | d: f16 | m: f16 | 16 x u8 |             w[i] = d * q[i] + m
/// Q5_0  22 bytes  | d: f16 | u32 of 5th bits | 16 x u8 |    w[i] = d * (q[i] - 16)
/// Q4_K 144 bytes  | d: f16 | m: f16 | 12 x u8 | 128 x u8 |  w[i] = d * s[i / 32] * q[i] - m * n[i / 32]
/// Q6_K 210 bytes  | 128 x u8 | 64 x u8 | 16 x i8 s | d: f16 |  w[i] = d * s[i / 16] * (q[i] - 32)
/// ```
/// Of a 4-bit byte `j` in a block of 32, the low half is element `j` and the high half element `j + 16`. Q4_K has 32 bytes
/// for each 64 elements, low halves first; its scales `s` and `n` have 6 bits each ([`q4_k_scales`]). Of each 128 elements
/// Q6_K has 64 bytes of lower halves (elements 0 to 63 in the low, 64 to 127 in the high halves) and 32 bytes of upper two
/// bits (element `e` in bits `e / 32 * 2` of byte `e % 32`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q4K,
    Q6K,
}

impl WeightType {
    /// Elements that are stored together: 32 or 256 for quantised types, else 1.
    pub const fn block_elems(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 => 32,
            Self::Q4K | Self::Q6K => 256,
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
            Self::Q5_0 => 22,
            Self::Q4K => 144,
            Self::Q6K => 210,
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
            Self::Q5_0 => blocks.for_each(|(b, w)| {
                let (d, high) = (half(b, 0), u32::from_le_bytes([b[2], b[3], b[4], b[5]]));
                nibbles(&b[6..], w, d, -16.0 * d);
                for (i, w) in w.iter_mut().enumerate().filter(|(i, _)| high >> i & 1 == 1) {
                    let low = b[6 + i % 16] >> (i / 16 * 4) & 15;
                    *w = d * f32::from(low);
                }
            }),
            Self::Q4K => blocks.for_each(|(b, w)| {
                let (d, m) = (half(b, 0), half(b, 2));
                for (i, w) in w.iter_mut().enumerate() {
                    let [scale, min] = q4_k_scales(&b[4..16], i / 32);
                    let q = b[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
                    *w = d * f32::from(scale) * f32::from(q) - m * f32::from(min);
                }
            }),
            Self::Q6K => blocks.for_each(|(b, w)| {
                let d = half(b, 208);
                for (i, w) in w.iter_mut().enumerate() {
                    let (part, e) = (i / 128, i % 128);
                    let low = b[part * 64 + e % 64] >> (e / 64 * 4) & 15;
                    let high = b[128 + part * 32 + e % 32] >> (e / 32 * 2) & 3;
                    let scale = f32::from(b[192 + i / 16] as i8);
                    *w = d * scale * (f32::from(low | high << 4) - 32.0);
                }
            }),
        }
    }
}

/// Scale and minimum of the 32 elements `j` of a Q4_K block, from its 12 bytes: of the first four the lower 6 bits of
/// bytes `j` and `j + 4`; of the last four a half of byte `j + 4` each, and above it the upper 2 bits of bytes `j - 4`
/// and `j`.
///
/// # Panics
/// If there are fewer bytes, or `j` is over 7.
pub fn q4_k_scales(packed: &[u8], j: usize) -> [u8; 2] {
    match j {
        0..4 => [packed[j] & 63, packed[j + 4] & 63],
        _ => [packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4],
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

    /// Each element from bits that say its number, against the file's layout written down bit by bit.
    #[test]
    fn wide_blocks_decode_as_drawn() {
        let mut out = [0f32; 32];
        // Elements 0..=31 in order: lower halves 0..=15 twice, the 5th bit from element 16 on.
        let q: Vec<u8> = (0..16u8).map(|j| j | j << 4).collect();
        let q5_0 = [&f16_bytes(0.5)[..], &0xffff_0000u32.to_le_bytes(), &q].concat();
        WeightType::Q5_0.dequantize(&q5_0, &mut out);
        assert_eq!(out, std::array::from_fn(|i| 0.5 * (i as f32 - 16.0)));

        let mut out = [0f32; 256];
        // Scale 2j + 1 and minimum 60 - j of block j: below 16 they fit the last four's halves, above they need all bits.
        let (scale, min) = (|j: u8| 2 * j + 1, |j: u8| 60 - j);
        let mut packed = [0u8; 12];
        for j in 0..4 {
            packed[usize::from(j)] = scale(j) | top(scale(j + 4)) << 6;
            packed[usize::from(j) + 4] = min(j) | top(min(j + 4)) << 6;
            packed[usize::from(j) + 8] = scale(j + 4) & 15 | min(j + 4) << 4;
        }
        let q: Vec<u8> = (0..128u32).map(|i| ((i % 13) | ((i % 7) << 4)) as u8).collect();
        let q4_k = [&f16_bytes(0.5)[..], &f16_bytes(0.25), &packed, &q].concat();
        WeightType::Q4K.dequantize(&q4_k, &mut out);
        for (i, w) in out.iter().enumerate() {
            let j = (i / 32) as u8;
            let byte = (i / 64 * 32 + i % 32) as u32;
            let q = if j.is_multiple_of(2) { byte % 13 } else { byte % 7 };
            assert_eq!(*w, 0.5 * f32::from(scale(j)) * q as f32 - 0.25 * f32::from(min(j)), "{i}");
        }

        let number = |i: usize| (i * 37 % 64) as u8;
        let mut q6_k = vec![0u8; 208];
        for i in 0..256 {
            let (part, e) = (i / 128, i % 128);
            q6_k[part * 64 + e % 64] |= (number(i) & 15) << (e / 64 * 4);
            q6_k[128 + part * 32 + e % 32] |= number(i) >> 4 << (e / 32 * 2);
        }
        (0..16).for_each(|i| q6_k[192 + i] = (i as i8 - 8) as u8);
        q6_k.extend(f16_bytes(0.5));
        WeightType::Q6K.dequantize(&q6_k, &mut out);
        for (i, w) in out.iter().enumerate() {
            assert_eq!(*w, 0.5 * ((i / 16) as f32 - 8.0) * (f32::from(number(i)) - 32.0));
        }
    }

    fn top(six_bits: u8) -> u8 {
        six_bits >> 4
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(WeightType::Q4_1.tensor_bytes(&[3, 64]), Some(120));
        assert_eq!(WeightType::Q4_1.tensor_bytes(&[3, 33]), None);
        assert_eq!(WeightType::F32.tensor_bytes(&[usize::MAX, 2]), None);
        assert_eq!(WeightType::F32.tensor_bytes(&[]), Some(4));
    }
}
