//! Ways in for the check program: what no engine needs.

use half::bf16;
use trireme_llm::executor::{DecodeRow, Sampled, Slot, StepDiff, StepId};

use super::forward::{Net, Rows, Samples};
use super::memory_plan::{BLOCK_TOKENS, Widths, logits_stride};
use super::profile::Part;
use super::run::CudaExecutor;
use crate::device::{Buffer, Device, Stream};
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

    /// The logits of the first `rows` rows of the step that ran last.
    pub fn logits(&mut self, rows: usize) -> Vec<Vec<f32>> {
        let vocab = self.net().weights.config.vocab_size;
        let stride = logits_stride(vocab) * 4;
        let mut bytes = vec![0; rows * stride];
        let (net, stream) = self.net_and_stream();
        if net.buffers.logits.read(0, &mut bytes, stream).is_err() {
            return Vec::new();
        }
        let row =
            |row: &[u8]| row[..vocab * 4].as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
        bytes.chunks_exact(stride).map(row).collect()
    }

    /// Runs a step's first layer as far as attention: the queries `[row][head][head_dim]` and what attention made of them.
    pub fn attend_only(&mut self, step: &StepDiff) -> Result<(Vec<f32>, Vec<f32>)> {
        let rules = |text: String| CudaError::Driver { call: "attend_only", error: text };
        let id = StepId(self.begin(step).map_err(|e| rules(e.to_string()))?);
        let (rows, _) = self.upload_mixed(step, id)?;
        let (net, stream) = self.net_and_stream();
        // SAFETY: the buffer has room for the rows of a step. All-ones are no numbers.
        unsafe { stream.fill(net.buffers.attended.at(0), 0xff, net.buffers.attended.bytes())? };
        net.embed(stream, &rows)?;
        for part in [Part::Qkv, Part::Rope, Part::Attention] {
            net.part(stream, &rows, 0, part)?;
        }
        let widths = Widths::new(&net.weights.config);
        let qkv = numbers(&net.buffers.qkv, 0, rows.count * widths.qkv, stream)?;
        let out = numbers(&net.buffers.attended, 0, rows.count * widths.attended, stream)?;
        let queries = qkv.chunks_exact(widths.qkv).flat_map(|row| row[..widths.attended].to_vec()).collect();
        self.finish(id, &[])?;
        self.take(id, true).map_err(|e| rules(e.to_string()))?;
        Ok((queries, out))
    }

    /// Keys and values of a block of the first layer: `[kv head][position in block][head_dim]` each.
    pub fn read_block(&mut self, block: u32) -> Result<(Vec<f32>, Vec<f32>)> {
        let (net, stream) = self.net_and_stream();
        let c = &net.weights.config;
        let elements = c.num_kv_heads * BLOCK_TOKENS * c.head_dim;
        let at = |base: u64| (base - net.buffers.keys(0)) as usize + block as usize * elements * 2;
        let read = |base| numbers(net.buffers.kv(), at(base), elements, stream);
        Ok((read(net.buffers.keys(0))?, read(net.buffers.values(0))?))
    }

    /// Sequences of this length in the first slots, over the blocks in turn, as the rows of decode steps. What the slots held is lost.
    pub(super) fn occupy(&mut self, rows: usize, context: usize) -> Result<()> {
        let width = self.net().state.args.table_width as usize;
        let blocks = self.memory_plan().num_blocks;
        let mut next = 0;
        let mut tables = vec![0i32; rows * width];
        for table in tables.chunks_mut(width) {
            for entry in table.iter_mut().take(context.div_ceil(BLOCK_TOKENS)) {
                next = (next + 1) % blocks;
                *entry = next as i32;
            }
        }
        let at = (self.net().state.args.tables - self.net().state.buffer().at(0)) as usize;
        let (net, stream) = self.net_and_stream();
        // SAFETY: plain numbers.
        net.state.buffer().write(at, unsafe { as_bytes(&tables) }, stream)?;
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

/// bf16 of the GPU's memory.
fn numbers(buffer: &Buffer, at: usize, count: usize, stream: &Stream) -> Result<Vec<f32>> {
    let mut bytes = vec![0; count * 2];
    buffer.read(at, &mut bytes, stream)?;
    Ok(bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect())
}
