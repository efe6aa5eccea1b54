//! Rotary position embedding.

use trireme_llm::checkpoint::RopeLayout;

/// Cosines and sines of some positions: for each, `head_dim / 2` pairs. Angles are computed in `f64`.
pub(crate) fn angles(
    positions: impl Iterator<Item = usize>,
    head_dim: usize,
    theta: f32,
    out: &mut Vec<[f32; 2]>,
) {
    out.clear();
    let half = head_dim / 2;
    let frequencies: Vec<f64> =
        (0..half).map(|i| f64::from(theta).powf(-2.0 * i as f64 / head_dim as f64)).collect();
    for position in positions {
        out.extend(frequencies.iter().map(|f| {
            let (sin, cos) = (position as f64 * f).sin_cos();
            [cos as f32, sin as f32]
        }));
    }
}

/// Turns one head, in place, and multiplies it by `scale`.
#[inline]
pub(crate) fn rotate(head: &mut [f32], angles: &[[f32; 2]], layout: RopeLayout, scale: f32) {
    match layout {
        RopeLayout::Half => {
            let (a, b) = head.split_at_mut(angles.len());
            for ((a, b), [cos, sin]) in a.iter_mut().zip(b).zip(angles) {
                (*a, *b) = ((*a * cos - *b * sin) * scale, (*b * cos + *a * sin) * scale);
            }
        }
        RopeLayout::Interleaved => {
            for ([a, b], [cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                (*a, *b) = ((*a * cos - *b * sin) * scale, (*b * cos + *a * sin) * scale);
            }
        }
    }
}
