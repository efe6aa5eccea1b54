//! Rotary frequencies under every known scaling, for all executors.

use std::borrow::Cow;
use std::f64::consts::TAU;

use super::config::DecoderConfig;

/// How a model's context was stretched beyond what it was first trained for.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeScaling {
    #[default]
    None,
    /// Positions are divided (Chen et al. 2023, position interpolation, arXiv 2306.15595).
    Linear { factor: f32 },
    /// The base grows with the length (NTK-aware, "dynamic"). See [`Rope::frequencies`].
    Dynamic { factor: f32, original_max: usize },
    /// Interpolation by band (Peng et al. 2023, YaRN, arXiv 2309.00071).
    Yarn {
        factor: f32,
        original_max: usize,
        /// Turns over the original context above which a frequency stays as it is.
        beta_fast: f32,
        /// Turns below which it is divided by `factor`.
        beta_slow: f32,
        /// Cosines and sines are multiplied by it.
        attention_factor: f32,
        /// Whether the ends of the ramp are rounded to whole pairs.
        truncate: bool,
    },
    /// The bands of Llama 3.1 (its published reference code).
    Llama3 { factor: f32, low_freq_factor: f32, high_freq_factor: f32, original_max: usize },
    /// A divisor for each frequency, written out: `rope_freqs.weight` of GGUF files. `head_dim / 2` of them.
    Divisors(Vec<f32>),
}

/// The rotary embedding of one decoder.
///
/// Pair `i` of a head at position `p` turns by `p * frequencies(p)[i]`; both cosine and sine are multiplied by
/// [`Self::attention_scaling`]. Which two elements are a pair says [`super::RopeLayout`].
#[derive(Clone, Debug)]
pub struct Rope {
    theta: f64,
    head_dim: usize,
    /// Up to `dynamic`'s original context for all positions, else for all.
    frequencies: Vec<f64>,
    /// Factor and original context.
    dynamic: Option<(f64, usize)>,
    attention_scaling: f32,
}

impl Rope {
    pub fn new(config: &DecoderConfig) -> Self {
        let (theta, head_dim) = (f64::from(config.rope_theta), config.head_dim);
        let mut frequencies = plain(theta, head_dim);
        let mut dynamic = None;
        let mut attention_scaling = 1.0;
        match &config.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= f64::from(*factor)),
            RopeScaling::Dynamic { factor, original_max } => {
                dynamic = Some((f64::from(*factor), *original_max));
            }
            RopeScaling::Yarn { factor, original_max, beta_fast, beta_slow, attention_factor, truncate } => {
                let band = Band::yarn(theta, head_dim, *original_max, [*beta_fast, *beta_slow], *truncate);
                for (i, f) in frequencies.iter_mut().enumerate() {
                    let interpolated = band.share(i);
                    *f = *f / f64::from(*factor) * interpolated + *f * (1.0 - interpolated);
                }
                attention_scaling = *attention_factor;
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max } => {
                let (low, high) = (f64::from(*low_freq_factor), f64::from(*high_freq_factor));
                for f in &mut frequencies {
                    // Turns over the original context: few are stretched, many are left alone.
                    let turns = *original_max as f64 * *f / TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    *f = *f / f64::from(*factor) * (1.0 - kept) + *f * kept;
                }
            }
            RopeScaling::Divisors(divisors) => {
                frequencies.iter_mut().zip(divisors).for_each(|(f, d)| *f /= f64::from(*d));
            }
        }
        Self { theta, head_dim, frequencies, dynamic, attention_scaling }
    }

    /// Radians a position, `head_dim / 2` of them, for a token at `position`.
    ///
    /// Only under dynamic scaling do they depend on it: beyond the original context `L` the base is
    /// `theta * (factor * n / L - (factor - 1)) ^ (d / (d - 2))` with `n = position + 1`. So a key is turned as it would be
    /// had its token been the last, which is what the Hugging Face code computes if tokens come one at a time; unlike it, the
    /// result is the same however a prompt is cut into pieces, and cached keys stay right.
    pub fn frequencies(&self, position: usize) -> Cow<'_, [f64]> {
        match self.dynamic {
            Some((factor, original)) if position >= original => {
                let (n, d) = ((position + 1) as f64, self.head_dim as f64);
                let grown = factor * n / original as f64 - (factor - 1.0);
                Cow::Owned(plain(self.theta * grown.powf(d / (d - 2.0)), self.head_dim))
            }
            _ => Cow::Borrowed(&self.frequencies),
        }
    }

    /// What cosines and sines are multiplied by: 1 but for YaRN.
    pub fn attention_scaling(&self) -> f32 {
        self.attention_scaling
    }

    /// Appends `[cosine, sine]` of each pair at `position`, multiplied by [`Self::attention_scaling`]; `head_dim / 2` pairs.
    /// Angles are computed in `f64`.
    pub fn angles(&self, position: usize, out: &mut Vec<[f32; 2]>) {
        let scaling = f64::from(self.attention_scaling);
        out.extend(self.frequencies(position).iter().map(|f| {
            let (sin, cos) = (position as f64 * f).sin_cos();
            [(cos * scaling) as f32, (sin * scaling) as f32]
        }));
    }
}

/// `theta ^ (-2i / d)` (Su et al. 2021, RoFormer, arXiv 2104.09864).
fn plain(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect()
}

/// Where YaRN goes from leaving frequencies alone to interpolating them, in pairs.
struct Band {
    low: f64,
    high: f64,
}

impl Band {
    /// Pair `i` makes `L / (TAU * theta^(2i/d))` turns over the original context `L`: solved for `i` at the two betas.
    fn yarn(theta: f64, head_dim: usize, original: usize, betas: [f32; 2], truncate: bool) -> Self {
        let d = head_dim as f64;
        let pair = |turns: f32| d * (original as f64 / (f64::from(turns) * TAU)).ln() / (2.0 * theta.ln());
        let [fast, slow] = betas.map(pair);
        let (low, high) = if truncate { (fast.floor(), slow.ceil()) } else { (fast, slow) };
        let (low, high) = (low.max(0.0), high.min(d - 1.0));
        Self { low, high: if low == high { high + 0.001 } else { high } }
    }

    /// How much of pair `i`'s frequency is interpolated, 0 to 1.
    fn share(&self, i: usize) -> f64 {
        ((i as f64 - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}
