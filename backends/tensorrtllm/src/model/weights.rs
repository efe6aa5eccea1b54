//! All weights as addresses on the GPU.

use trireme_llm::checkpoint::{Checkpoint, DecoderConfig, WeightType};

use super::{WeightLayout, angles, dummy, load};
use crate::device::{Buffer, Device, Stream};
use crate::error::Result;
use crate::kernels::Kernels;

/// Addresses of a layer's weights; matrices are `[out][in]`, bf16.
#[derive(Clone, Copy, Debug)]
pub struct LayerWeights {
    pub input_norm: u64,
    pub qkv: u64,
    /// 0 for none; so the norms of heads.
    pub qkv_bias: u64,
    pub q_norm: u64,
    pub k_norm: u64,
    pub o: u64,
    pub post_norm: u64,
    pub gate_up: u64,
    pub down: u64,
}

/// A decoder's weights, and the table of its rotary embedding.
pub struct Weights {
    pub config: DecoderConfig,
    pub embedding: u64,
    pub norm: u64,
    pub head: u64,
    pub layers: Vec<LayerWeights>,
    /// `[position][head_dim / 2]` of (cosine, sine), f32.
    pub angles: Buffer,
    _arena: Buffer,
}

/// Where weights come from.
pub enum Source<'a> {
    Checkpoint(&'a Checkpoint),
    /// The random numbers of `load_format: dummy`, for a checkpoint of this type.
    Dummy(WeightType),
    /// bf16 bytes by Hugging Face name, heads in halves.
    Tensors(&'a dyn Fn(&str) -> Option<Vec<u8>>),
}

impl Weights {
    /// Puts all weights on the GPU. `positions` is the length of the rotary table.
    pub fn load(
        device: &Device,
        stream: &Stream,
        kernels: &Kernels,
        config: &DecoderConfig,
        source: &Source<'_>,
        positions: usize,
    ) -> Result<Self> {
        let layout = WeightLayout::new(config)?;
        let arena = Buffer::new(device, layout.bytes())?;
        match source {
            Source::Checkpoint(checkpoint) => load::fill(device, stream, checkpoint, &layout, &arena)?,
            Source::Tensors(bytes) => load::fill_from(stream, *bytes, &layout, &arena)?,
            Source::Dummy(ty) => dummy::fill(stream, kernels, &layout, &arena, *ty)?,
        }
        let angles = angles::table(device, stream, config, positions)?;
        let at = |offset: usize| arena.at(offset);
        let maybe = |offset: Option<usize>| offset.map_or(0, at);
        let layers = layout
            .layers
            .iter()
            .map(|l| LayerWeights {
                input_norm: at(l.input_norm),
                qkv: at(l.qkv),
                qkv_bias: maybe(l.qkv_bias),
                q_norm: maybe(l.q_norm),
                k_norm: maybe(l.k_norm),
                o: at(l.o),
                post_norm: at(l.post_norm),
                gate_up: at(l.gate_up),
                down: at(l.down),
            })
            .collect();
        let (embedding, norm, head) = (at(layout.embedding), at(layout.norm), at(layout.head));
        Ok(Self { config: config.clone(), embedding, norm, head, layers, angles, _arena: arena })
    }
}
