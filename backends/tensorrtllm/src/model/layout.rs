//! Where each weight lies in the one piece of memory that holds them all, and what of the checkpoint it is made of.

use trireme_llm::checkpoint::DecoderConfig;

use crate::error::{CudaError, Result};
use crate::kernels::HEAD_DIMS;

/// Every weight begins at a multiple of it.
const ALIGN: usize = 256;

/// Elements of a row that the staging buffers of loading surely hold.
const MAX_WIDTH: usize = 1 << 20;

/// A weight of the GPU: tensors of the checkpoint one after another, as bf16.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) offset: usize,
    pub(super) parts: Vec<Part>,
}

/// A tensor, and whether its rows are heads whose halves a GGUF file may have interleaved.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) elements: usize,
    pub(super) rotary: bool,
}

/// Offsets of a layer's weights.
#[derive(Clone, Debug)]
pub(super) struct LayerOffsets {
    pub(super) input_norm: usize,
    pub(super) qkv: usize,
    pub(super) qkv_bias: Option<usize>,
    pub(super) q_norm: Option<usize>,
    pub(super) k_norm: Option<usize>,
    pub(super) o: usize,
    pub(super) post_norm: usize,
    pub(super) gate_up: usize,
    pub(super) down: usize,
}

/// The plan of the weights' memory.
#[derive(Clone, Debug)]
pub struct WeightLayout {
    pub(super) pieces: Vec<Piece>,
    pub(super) layers: Vec<LayerOffsets>,
    pub(super) embedding: usize,
    pub(super) norm: usize,
    pub(super) head: usize,
    pub(super) bytes: usize,
    pub(super) head_dim: usize,
}

impl WeightLayout {
    /// # Errors
    /// [`CudaError::Unsupported`] if a kernel is missing for what the model is.
    pub fn new(c: &DecoderConfig) -> Result<Self> {
        supported(c)?;
        let (q, kv) = (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim);
        let (hidden, inter) = (c.hidden_size, c.intermediate_size);
        let mut b = Builder::default();
        let embedding = b.piece(vec![part("model.embed_tokens.weight", c.vocab_size * hidden)]);
        let mut layers = Vec::with_capacity(c.num_layers);
        for i in 0..c.num_layers {
            let name = |rest: &str| format!("model.layers.{i}.{rest}");
            let attention = |what: &str, of: &str, elements: usize| Part {
                name: name(&format!("self_attn.{what}.{of}")),
                elements,
                rotary: what.starts_with('q') || what.starts_with('k'),
            };
            let plain = |rest: &str, elements: usize| part(&name(rest), elements);
            let qkv = |of: &str, columns: usize| {
                [("q_proj", q), ("k_proj", kv), ("v_proj", kv)]
                    .map(|(what, rows)| attention(what, of, rows * columns))
                    .to_vec()
            };
            let head_norm = |b: &mut Builder, what: &str| {
                c.qk_norm.then(|| b.piece(vec![attention(what, "weight", c.head_dim)]))
            };
            layers.push(LayerOffsets {
                input_norm: b.piece(vec![plain("input_layernorm.weight", hidden)]),
                qkv: b.piece(qkv("weight", hidden)),
                qkv_bias: c.qkv_bias.then(|| b.piece(qkv("bias", 1))),
                q_norm: head_norm(&mut b, "q_norm"),
                k_norm: head_norm(&mut b, "k_norm"),
                o: b.piece(vec![plain("self_attn.o_proj.weight", hidden * q)]),
                post_norm: b.piece(vec![plain("post_attention_layernorm.weight", hidden)]),
                gate_up: b.piece(vec![
                    plain("mlp.gate_proj.weight", inter * hidden),
                    plain("mlp.up_proj.weight", inter * hidden),
                ]),
                down: b.piece(vec![plain("mlp.down_proj.weight", hidden * inter)]),
            });
        }
        let norm = b.piece(vec![part("model.norm.weight", hidden)]);
        let head = if c.tie_word_embeddings {
            embedding
        } else {
            b.piece(vec![part("lm_head.weight", c.vocab_size * hidden)])
        };
        Ok(Self { pieces: b.pieces, layers, embedding, norm, head, bytes: b.bytes, head_dim: c.head_dim })
    }

    /// Bytes of all weights together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[derive(Default)]
struct Builder {
    pieces: Vec<Piece>,
    bytes: usize,
}

impl Builder {
    fn piece(&mut self, parts: Vec<Part>) -> usize {
        let offset = self.bytes;
        let elements: usize = parts.iter().map(|p| p.elements).sum();
        self.bytes = (offset + elements * 2).next_multiple_of(ALIGN);
        self.pieces.push(Piece { offset, parts });
        offset
    }
}

fn part(name: &str, elements: usize) -> Part {
    Part { name: name.to_owned(), elements, rotary: false }
}

/// What the kernels can do: the table of `docs/cuda.md`.
fn supported(c: &DecoderConfig) -> Result<()> {
    let no = |text: String| Err(CudaError::Unsupported(text));
    if !HEAD_DIMS.contains(&c.head_dim) {
        return no(format!("heads of {} (there are kernels for {HEAD_DIMS:?})", c.head_dim));
    }
    let query = c.num_heads * c.head_dim;
    for (what, size) in [
        ("hidden_size", c.hidden_size),
        ("intermediate_size", c.intermediate_size),
        ("heads x head size", query),
    ] {
        if !size.is_multiple_of(32) || size > MAX_WIDTH {
            return no(format!("'{what}' is {size}, it must be a multiple of 32 up to {MAX_WIDTH}"));
        }
    }
    if c.output_bias || c.mlp_bias {
        return no("biases of the attention's output and of the MLP have no kernel".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_llm::checkpoint::RopeScaling;

    fn config() -> DecoderConfig {
        DecoderConfig {
            vocab_size: 100,
            hidden_size: 64,
            intermediate_size: 96,
            num_layers: 2,
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 64,
            rope_theta: 1e4,
            rope_scaling: RopeScaling::None,
            rms_norm_eps: 1e-5,
            max_position_embeddings: 128,
            sliding_window: None,
            first_window_layer: 0,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_ids: vec![],
            pad_token_id: None,
        }
    }

    #[test]
    fn pieces_do_not_overlap_and_are_aligned() {
        for (qkv_bias, qk_norm, tied) in [(false, false, true), (true, true, false)] {
            let c = DecoderConfig { qkv_bias, qk_norm, tie_word_embeddings: tied, ..config() };
            let layout = WeightLayout::new(&c).unwrap();
            let mut end = 0;
            for piece in &layout.pieces {
                assert!(piece.offset >= end && piece.offset.is_multiple_of(ALIGN));
                end = piece.offset + piece.parts.iter().map(|p| p.elements).sum::<usize>() * 2;
            }
            assert!(end <= layout.bytes());
            assert_eq!(layout.head == layout.embedding, tied);
        }
    }

    #[test]
    fn what_has_no_kernel_is_refused_with_the_reason() {
        let error = |c: DecoderConfig| WeightLayout::new(&c).unwrap_err().to_string();
        assert!(error(DecoderConfig { head_dim: 48, ..config() }).contains("heads of 48"));
        assert!(error(DecoderConfig { hidden_size: 72, ..config() }).contains("'hidden_size' is 72"));
        assert!(error(DecoderConfig { mlp_bias: true, ..config() }).contains("biases"));
    }
}
