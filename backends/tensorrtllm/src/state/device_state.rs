//! The device's own copy of the slots.

use super::records::{DeviceStateArgs, SlotParams};
use crate::device::{Buffer, Device};
use crate::error::Result;

/// One piece of memory with a row for each slot and one for the dummy slot behind them.
pub struct DeviceState {
    buffer: Buffer,
    pub args: DeviceStateArgs,
}

struct Layout {
    /// Offsets of params, last_token, tables, generated, prompt_bits, end_bits, bias, mask_bits, mask_step, step.
    offsets: [usize; 10],
    bytes: usize,
}

fn layout(slots: usize, table_width: usize, vocab: usize) -> Layout {
    let rows = slots + 1;
    let bits = rows * vocab.div_ceil(32) * 4;
    let sizes = [
        rows * size_of::<SlotParams>(),
        rows * 4,
        rows * table_width * 4,
        (rows * vocab * 2).next_multiple_of(4),
        bits,
        bits,
        rows * vocab * 4,
        bits,
        rows * 4,
        8,
    ];
    let mut bytes = 0;
    let offsets = sizes.map(|size| {
        let at = bytes;
        bytes = (at + size).next_multiple_of(256);
        at
    });
    Layout { offsets, bytes }
}

impl DeviceState {
    /// Bytes for so many slots.
    pub fn bytes(slots: usize, table_width: usize, vocab: usize) -> usize {
        layout(slots, table_width, vocab).bytes
    }

    /// All zero: greedy slots with empty tables.
    pub fn new(device: &Device, slots: usize, table_width: usize, vocab: usize) -> Result<Self> {
        let Layout { offsets, bytes } = layout(slots, table_width, vocab);
        let buffer = Buffer::zeroed(device, bytes)?;
        let [params, last_token, tables, generated, prompt_bits, end_bits, bias, mask_bits, mask_step, step] =
            offsets.map(|offset| buffer.at(offset));
        let args = DeviceStateArgs {
            params,
            last_token,
            tables,
            generated,
            prompt_bits,
            end_bits,
            bias,
            mask_bits,
            mask_step,
            step,
            table_width: table_width as i32,
            vocab: vocab as i32,
            mask_words: vocab.div_ceil(32) as i32,
            dummy_slot: slots as i32,
        };
        Ok(Self { buffer, args })
    }

    /// Offset of the step counter, for resetting it.
    pub fn step_offset(&self) -> usize {
        (self.args.step - self.buffer.at(0)) as usize
    }

    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}
