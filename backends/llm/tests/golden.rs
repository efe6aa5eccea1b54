//! Real files give the known values: ids, prompts, shapes, texts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::OnceLock;

use common::{SMOLLM2_GGUF, minilm, model_file};
use proptest::prelude::*;
use trireme_llm::chat::{ChatMessage, ChatOptions, ChatTemplate};
use trireme_llm::checkpoint::{
    Architecture, Checkpoint, DecoderConfig, Pooling, RopeLayout, RopeScaling, WeightType,
};
use trireme_llm::tokenizer::{Detokenizer, Tokenizer};

/// "What is the capital of France?" with the default system prompt.
const CHAT_IDS: [u32; 37] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182,
    2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198,
];

fn smollm2() -> Checkpoint {
    Checkpoint::open(&model_file(SMOLLM2_GGUF)).unwrap()
}

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| smollm2().tokenizer().unwrap())
}

fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut detokenizer = Detokenizer::new(tokenizer);
    let mut out: Vec<String> = ids.iter().map(|&id| detokenizer.push(id).unwrap()).collect();
    out.push(detokenizer.finish().unwrap());
    out
}

#[test]
fn smollm2_is_read_from_gguf() {
    let checkpoint = smollm2();
    let expected = DecoderConfig {
        vocab_size: 49152,
        hidden_size: 576,
        intermediate_size: 1536,
        num_layers: 30,
        num_heads: 9,
        num_kv_heads: 3,
        head_dim: 64,
        rope_theta: 100_000.0,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        first_window_layer: 0,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 8192,
        tie_word_embeddings: true,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
        pad_token_id: Some(2),
    };
    assert_eq!(checkpoint.architecture, Architecture::Decoder(expected));
    assert_eq!(checkpoint.rope_layout, RopeLayout::Interleaved);
    assert_eq!(checkpoint.weights().count(), 272);
    assert_eq!(checkpoint.weights().map(|w| w.num_elements()).sum::<usize>(), 134_515_008);
    let k = checkpoint.weight("model.layers.29.self_attn.k_proj.weight").unwrap();
    assert_eq!((k.ty, k.shape.as_slice(), k.row(0).len()), (WeightType::Q4_1, &[192, 576][..], 360));
    let embedding = checkpoint.weight("model.embed_tokens.weight").unwrap();
    assert_eq!((embedding.ty, embedding.shape.as_slice()), (WeightType::Q8_0, &[49152, 576][..]));
    assert!(embedding.to_f32().iter().all(|w| w.is_finite() && w.abs() < 10.0));
    assert!(checkpoint.try_weight("lm_head.weight").is_none());
    let missing = checkpoint.weight("lm_head.weight").unwrap_err().to_string();
    assert!(missing.ends_with("has no tensor 'lm_head.weight'"), "{missing}");
}

#[test]
fn smollm2_tokens() {
    let t = tokenizer();
    assert_eq!(t.vocab_size(), 49152);
    assert_eq!(t.encode("Hello world, 12345", true).unwrap(), [19556, 905, 28, 216, 33, 34, 35, 36, 37]);
    assert_eq!(
        t.decode(&[504, 3575, 282, 4649, 314, 7042, 30, 2], true).unwrap(),
        "The capital of France is Paris."
    );
    assert_eq!(t.encode("<|im_end|>", false).unwrap(), [2]);
    assert_eq!(t.token_to_id("<|im_start|>"), Some(1));
}

#[test]
fn smollm2_chat_prompt() {
    let source = smollm2().chat_template().unwrap();
    assert_eq!(
        (source.bos_token.as_deref(), source.eos_token.as_deref()),
        (Some("<|im_start|>"), Some("<|im_end|>"))
    );
    let template = ChatTemplate::new(&source).unwrap();
    let messages = [ChatMessage::new("user", "What is the capital of France?")];
    let prompt = template.render(&messages, &ChatOptions::default()).unwrap();
    assert_eq!(tokenizer().encode(&prompt, false).unwrap(), CHAT_IDS);
}

#[test]
fn characters_of_several_tokens_come_whole() {
    let t = tokenizer();
    let text = "naïve 🦀🏳️‍🌈 日本語 \u{10348}!";
    let ids = t.encode(text, false).unwrap();
    let pieces = pieces(t, &ids);
    assert_eq!(pieces.concat(), text);
    assert!(pieces.iter().any(String::is_empty), "some character should take several tokens: {pieces:?}");
    assert!(!pieces.concat().contains('\u{fffd}'));
    // Cut in the middle of a character: the rest is told at the end, as decoding the whole does.
    let crab = t.encode("🦀", false).unwrap();
    assert!(crab.len() > 1);
    let cut = pieces_of_cut(t, &crab[..crab.len() - 1]);
    assert_eq!(cut, ("".to_owned(), "\u{fffd}".to_owned()));
}

fn pieces_of_cut(t: &Tokenizer, ids: &[u32]) -> (String, String) {
    let mut all = pieces(t, ids);
    let last = all.pop().unwrap();
    (all.concat(), last)
}

#[test]
fn special_tokens_are_no_text() {
    let t = tokenizer();
    assert_eq!(pieces(t, &[1, 504, 2]).concat(), "The");
    assert_eq!(pieces(t, &[u32::MAX]).concat(), "", "ids beyond the vocabulary have no text");
}

#[test]
fn minilm_is_read_from_a_folder() {
    let dir = minilm();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let Architecture::Bert(c) = &checkpoint.architecture else { panic!("{checkpoint:?}") };
    assert_eq!((c.num_layers, c.hidden_size, c.num_heads, c.intermediate_size), (6, 384, 12, 1536));
    assert_eq!((c.vocab_size, c.max_position_embeddings, c.layer_norm_eps), (30522, 512, 1e-12));
    assert_eq!((c.pooling, c.normalize), (Pooling::Mean, true));
    assert_eq!(checkpoint.weights().count(), 103);
    assert!(checkpoint.chat_template().is_none());
    let t = checkpoint.tokenizer().unwrap();
    let ids = t.encode("A man is eating food.", true).unwrap();
    assert_eq!(ids, [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]);
    assert_eq!(t.encode(&"word ".repeat(400), true).unwrap().len(), 402, "neither cut nor padded");
    assert_eq!(pieces(&t, &ids).concat(), "a man is eating food.");
}

proptest! {
    #[test]
    fn pieces_are_the_whole_text(ids in prop::collection::vec(0u32..49152, 0..40)) {
        let t = tokenizer();
        prop_assert_eq!(pieces(t, &ids).concat(), t.decode(&ids, true).unwrap());
    }

    #[test]
    fn texts_come_back(text in "\\PC{0,60}") {
        let t = tokenizer();
        let ids = t.encode(&text, false).unwrap();
        prop_assert_eq!(t.decode(&ids, false).unwrap(), text);
    }
}
