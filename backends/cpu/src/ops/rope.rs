//! Rotary position embedding.

use trireme_llm::checkpoint::RopeLayout;

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
