//! What a client may ask of the sampler, checked.

/// A parameter that is out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name} is {value}, it must be {range}")]
pub struct SamplingError {
    /// The parameter as clients spell it.
    pub name: &'static str,
    pub value: String,
    pub range: &'static str,
}

/// Parameters as a client gave them, each optional.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingRequest {
    /// 0 is greedy. 1 if absent.
    pub temperature: Option<f32>,
    /// Choose among this many best tokens; 0 (or absent) is all.
    pub top_k: Option<i64>,
    /// Choose among the fewest best tokens whose probabilities reach this; 1 (or absent) is all, 0 is the best one.
    pub top_p: Option<f32>,
    /// 0 if absent.
    pub random_seed: Option<u64>,
}

/// Checked parameters. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    seed: u64,
}

impl SamplingParams {
    /// The best token each time.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };

    /// Checks what a client asked for. Who gives none of temperature, `top_k` and `top_p` gets greedy decoding.
    pub fn new(request: &SamplingRequest) -> Result<Self, SamplingError> {
        let seed = request.random_seed.unwrap_or(0);
        if (request.temperature, request.top_k, request.top_p) == (None, None, None) {
            return Ok(Self { seed, ..Self::GREEDY });
        }
        let refuse = |name, value: String, range| Err(SamplingError { name, value, range });
        let temperature = request.temperature.unwrap_or(1.0);
        if !(temperature.is_finite() && temperature >= 0.0) {
            return refuse("temperature", temperature.to_string(), "a number of at least 0");
        }
        let top_k = request.top_k.unwrap_or(0);
        let Ok(top_k) = usize::try_from(top_k) else {
            return refuse("top_k", top_k.to_string(), "at least 0 (0 is all tokens)");
        };
        let top_p = request.top_p.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&top_p) {
            return refuse("top_p", top_p.to_string(), "from 0 to 1");
        }
        Ok(Self { temperature, top_k, top_p, seed })
    }

    /// Whether the best token is chosen each time.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1 || self.top_p == 0.0
    }

    pub fn temperature(&self) -> f32 {
        self.temperature
    }

    /// 0 is all tokens.
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    pub fn top_p(&self) -> f32 {
        self.top_p
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self::GREEDY
    }
}
