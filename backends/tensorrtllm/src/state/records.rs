//! Structures that kernels and host both know: `kernels/state.cuh` has the same, field by field.

use trireme_llm::executor::SlotSampling;

/// Most tokens that are reported beside a chosen one.
pub const MAX_LOGPROBS: usize = 32;

/// How a slot chooses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SlotParams {
    pub temperature: f32,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition: f32,
    pub presence: f32,
    pub frequency: f32,
    pub top_k: i32,
    /// -1 for none.
    pub logprobs: i32,
    pub min_tokens: u32,
    pub flags: u32,
    pub seed: u64,
    pub reserved: [u64; 2],
}

const HAS_PENALTIES: u32 = 1;
const HAS_BIAS: u32 = 2;
const HAS_END_IDS: u32 = 4;

impl SlotParams {
    pub fn new(s: &SlotSampling) -> Self {
        let mut flags = 0;
        if s.repetition_penalty != 1.0 || s.presence_penalty != 0.0 || s.frequency_penalty != 0.0 {
            flags |= HAS_PENALTIES;
        }
        if !s.logit_bias.is_empty() {
            flags |= HAS_BIAS;
        }
        if s.min_tokens > 0 && !s.end_ids.is_empty() {
            flags |= HAS_END_IDS;
        }
        Self {
            temperature: s.temperature,
            top_p: s.top_p,
            min_p: s.min_p,
            repetition: s.repetition_penalty,
            presence: s.presence_penalty,
            frequency: s.frequency_penalty,
            top_k: i32::try_from(s.top_k).unwrap_or(i32::MAX),
            logprobs: s.logprobs.map_or(-1, |n| n.min(MAX_LOGPROBS as u32) as i32),
            min_tokens: s.min_tokens,
            flags,
            seed: s.seed,
            reserved: [0; 2],
        }
    }

    pub fn has_penalties(&self) -> bool {
        self.flags & HAS_PENALTIES != 0
    }

    pub fn has_end_ids(&self) -> bool {
        self.flags & HAS_END_IDS != 0
    }

    /// Whether the slot needs rows of the vocabulary's size, which must be clean.
    pub fn needs_tables(&self) -> bool {
        self.flags != 0
    }
}

/// A change of the device's state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeHead {
    pub kind: i32,
    pub slot: i32,
    pub first: i32,
    pub count: i32,
    pub words: u32,
    pub reserved: [u32; 3],
}

/// What a row chose.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub token: i32,
    pub logprob: f32,
    pub top_count: i32,
    pub reserved: i32,
    pub top_id: [i32; MAX_LOGPROBS],
    pub top_logprob: [f32; MAX_LOGPROBS],
}

/// `State` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceStateArgs {
    pub params: u64,
    pub last_token: u64,
    pub tables: u64,
    pub generated: u64,
    pub prompt_bits: u64,
    pub end_bits: u64,
    pub bias: u64,
    pub mask_bits: u64,
    pub mask_step: u64,
    pub step: u64,
    pub table_width: i32,
    pub vocab: i32,
    pub mask_words: i32,
    pub dummy_slot: i32,
}

/// Structures without padding, as bytes.
///
/// # Safety
/// `T` must have no padding bytes.
pub unsafe fn as_bytes<T: Copy>(values: &[T]) -> &[u8] {
    // SAFETY: every byte is initialised, as the caller promises.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

impl Choice {
    /// Reads record `index` of an array in memory.
    pub fn read(bytes: &[u8], index: usize) -> Self {
        let at = index * size_of::<Self>();
        let from = &bytes[at..at + size_of::<Self>()];
        // SAFETY: the range has the structure's size, and every bit pattern is one of its values.
        unsafe { from.as_ptr().cast::<Self>().read_unaligned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that the kernels count with.
    #[test]
    fn layouts_are_those_of_the_kernels() {
        assert_eq!(size_of::<SlotParams>(), 64);
        assert_eq!(size_of::<ChangeHead>(), 32);
        assert_eq!(size_of::<Choice>(), 16 + 8 * MAX_LOGPROBS);
        assert_eq!(size_of::<DeviceStateArgs>(), 96);
    }

    #[test]
    fn flags_say_what_a_slot_needs() {
        let plain = SlotParams::new(&SlotSampling::default());
        assert!(!plain.needs_tables() && plain.logprobs == -1);
        let all = SlotParams::new(&SlotSampling {
            presence_penalty: 0.5,
            logit_bias: vec![(1, 2.0)],
            min_tokens: 3,
            end_ids: vec![2],
            logprobs: Some(5),
            ..SlotSampling::default()
        });
        assert!(all.has_penalties() && all.has_end_ids() && all.needs_tables() && all.logprobs == 5);
    }
}
