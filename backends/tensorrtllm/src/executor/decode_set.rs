//! The decode rows that the GPU keeps: arrays that kernels move on by themselves from step to step.

use trireme_llm::executor::DecodeRow;

use super::forward::Rows;
use crate::device::{Buffer, Device};
use crate::error::Result;

/// Four arrays of `max` entries: token (always -1: what the slot sampled last), slot, position, index.
pub(super) struct DecodeSet {
    pub(super) buffer: Buffer,
    max: usize,
    dummy_slot: i32,
    /// What the GPU's arrays hold, rows of the last set only.
    mirror: Vec<DecodeRow>,
    /// Entries that were written with them, padding included.
    written: usize,
}

impl DecodeSet {
    pub(super) fn new(device: &Device, max: usize, dummy_slot: usize) -> Result<Self> {
        let buffer = Buffer::zeroed(device, max * 16)?;
        Ok(Self { buffer, max, dummy_slot: dummy_slot as i32, mirror: Vec::new(), written: 0 })
    }

    /// Addresses of the arrays for a step of `bucket` rows.
    pub(super) fn rows(&self, bucket: usize) -> Rows {
        let array = |i: usize| self.buffer.at(i * self.max * 4);
        Rows {
            count: bucket,
            decode: bucket,
            tiles: 0,
            num_tiles: 0,
            tokens: array(0),
            slots: array(1),
            positions: array(2),
        }
    }

    pub(super) fn indices(&self) -> u64 {
        self.buffer.at(3 * self.max * 4)
    }

    /// Whether the GPU has these rows already, padded up to `bucket`.
    pub(super) fn holds(&self, rows: &[DecodeRow], bucket: usize) -> bool {
        self.written >= bucket && self.mirror == rows
    }

    /// The arrays for these rows, as they are sent.
    pub(super) fn encode(&mut self, rows: &[DecodeRow], out: &mut [u8]) -> usize {
        let max = self.max;
        let mut put = |array: usize, i: usize, value: i32| {
            let at = (array * max + i) * 4;
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        for i in 0..max {
            put(0, i, -1);
            match rows.get(i) {
                Some(row) => {
                    put(1, i, row.slot.0 as i32);
                    put(2, i, row.position as i32);
                    put(3, i, row.sample as i32);
                }
                None => {
                    put(1, i, self.dummy_slot);
                    put(2, i, 0);
                    put(3, i, 0);
                }
            }
        }
        self.mirror.clear();
        self.mirror.extend_from_slice(rows);
        self.written = max;
        max * 16
    }

    /// The rows have moved on by a token.
    pub(super) fn advance(&mut self) {
        for row in &mut self.mirror {
            row.position += 1;
            row.sample += 1;
        }
    }
}
