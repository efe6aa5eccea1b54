//! Numbers from a seed.

use half::bf16;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A normal number.
    pub(crate) fn normal(&mut self) -> f32 {
        let (u, v) = (self.uniform().max(1e-300), self.uniform());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// Normal numbers of this deviation, rounded to bf16.
    pub(crate) fn bf16s(&mut self, n: usize, deviation: f32) -> Vec<bf16> {
        (0..n).map(|_| bf16::from_f32(self.normal() * deviation)).collect()
    }
}

pub(crate) fn bytes(values: &[bf16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
}

/// ‖out - reference‖ / ‖reference‖; never small for what is no number.
pub(crate) fn distance(out: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(out.len(), reference.len());
    let mut error = 0.0;
    let mut norm = 0.0;
    for (&o, &r) in out.iter().zip(reference) {
        error += (f64::from(o) - r).powi(2);
        norm += r * r;
    }
    let ratio = (error / norm.max(1e-300)).sqrt();
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}
