//! Ways in for the check program: what no engine needs.

use trireme_llm::executor::{DecodeRow, Sampled, Slot, StepDiff, StepId};

use super::forward::{Net, Rows, Samples};
use super::memory_plan::{BLOCK_TOKENS, logits_stride};
use super::run::CudaExecutor;
use crate::device::{Device, Stream};
use crate::error::{CudaError, Result};
use crate::state::as_bytes;

impl CudaExecutor {
    /// Chooses tokens from given logits, one row for each decode row of `step`, by the whole path of a step except for
    /// the layers.
    pub fn sample_from(&mut self, step: &StepDiff, logits: &[Vec<f32>]) -> Result<Vec<Sampled>> {
        let rules = |text: String| CudaError::Driver { call: "sample_from", error: text };
        let id = StepId(self.begin(step).map_err(|e| rules(e.to_string()))?);
        let stride = logits_stride(self.net().weights.config.vocab_size);
        for (i, row) in logits.iter().enumerate() {
            let (net, stream) = self.net_and_stream();
            // SAFETY: plain numbers.
            net.buffers.logits.write(i * stride * 4, unsafe { as_bytes(row) }, stream)?;
        }
        self.put_decode_set(&step.decode, id)?;
        let samples = self.set_samples(step.decode.len());
        let (net, stream) = self.net_and_stream();
        net.sample(stream, &samples)?;
        let slots: Vec<Slot> = step.decode.iter().map(|row| row.slot).collect();
        self.finish(id, &slots)?;
        let out = self.take(id, true).map_err(|e| rules(e.to_string()))?;
        Ok(out.map(|o| o.sampled).unwrap_or_default())
    }

    pub(super) fn occupy(&mut self, rows: usize, context: usize) -> Result<()> {
        let width = self.net().state.args.table_width as usize;
        let blocks = self.memory_plan().num_blocks;
        let mut next = 0;
        for slot in 0..rows {
            let table: Vec<i32> = (0..context.div_ceil(BLOCK_TOKENS).min(width))
                .map(|_| {
                    next = (next + 1) % blocks;
                    next as i32
                })
                .collect();
            let at =
                (self.net().state.args.tables - self.net().state.buffer().at(0)) as usize + slot * width * 4;
            let (net, stream) = self.net_and_stream();
            // SAFETY: plain numbers.
            net.state.buffer().write(at, unsafe { as_bytes(&table) }, stream)?;
        }
        let list: Vec<DecodeRow> = (0..rows)
            .map(|slot| DecodeRow { slot: Slot(slot as u32), position: context as u32 - 1, sample: 0 })
            .collect();
        self.put_decode_set(&list, StepId(0))?;
        let (_, stream) = self.net_and_stream();
        stream.synchronize()
    }

    pub(super) fn set_rows(&self, rows: usize) -> Rows {
        self.set_ref().rows(rows)
    }

    pub(super) fn set_samples(&self, rows: usize) -> Samples {
        self.decode_samples(rows)
    }

    pub(super) fn device(&self) -> &Device {
        self.device_ref()
    }

    pub(super) fn net(&self) -> &Net {
        self.net_ref()
    }

    pub(super) fn net_and_stream(&mut self) -> (&mut Net, &Stream) {
        self.parts()
    }
}
