//! The sizes between the ends of an axis.

use super::AxisRange;

/// Up to each size, the step between buckets: dense where a padded row costs most.
const STEPS: [(u32, u32); 5] = [(16, 1), (128, 8), (256, 16), (512, 32), (1024, 64)];
/// Beyond the table.
const LAST_STEP: u32 = 256;

/// The buckets of an axis, growing: `min`, `opt`, `max`, and between them every size to 16, every 8th to 128, every
/// 16th to 256, every 32nd to 512, every 64th to 1024 and every 256th beyond.
pub fn ladder(range: AxisRange) -> Vec<u32> {
    let mut sizes = vec![range.min, range.opt, range.max];
    let mut size = range.min;
    while size < range.max {
        let step = STEPS.iter().find(|(end, _)| size < *end).map_or(LAST_STEP, |(_, step)| *step);
        // The next multiple of the step.
        let Some(next) = (size / step + 1).checked_mul(step) else { break };
        size = next.min(range.max);
        sizes.push(size);
    }
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}
