//! One thing that is measured: protocol, payload, concurrency, batcher.

/// The two models of every server: with `dynamic_batching {}` and without a batcher.
pub(crate) const MODELS: [&str; 2] = [BATCHED, UNBATCHED];
pub(crate) const BATCHED: &str = "identity_fp32";
pub(crate) const UNBATCHED: &str = "identity_fp32_nodyn";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// 1×16 FP32.
    Small,
    /// 1 MiB.
    Big,
}

#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) protocol: Protocol,
    pub(crate) payload: Payload,
    pub(crate) concurrency: u32,
    pub(crate) model: &'static str,
}

impl Cell {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Protocol::Http, Protocol::Grpc].into_iter().flat_map(|protocol| {
            [Payload::Small, Payload::Big].into_iter().flat_map(move |payload| {
                [1, 8, 64].into_iter().flat_map(move |concurrency| {
                    MODELS.into_iter().map(move |model| Self { protocol, payload, concurrency, model })
                })
            })
        })
    }

    pub(crate) fn name(self) -> String {
        let batcher = if self.model == BATCHED { "dynamic" } else { "none" };
        format!("{}/{}/{}/{batcher}", self.protocol_name(), self.payload_name(), self.concurrency)
    }

    pub(crate) fn protocol_name(self) -> &'static str {
        match self.protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
        }
    }

    pub(crate) fn payload_name(self) -> &'static str {
        match self.payload {
            Payload::Small => "small",
            Payload::Big => "big",
        }
    }

    /// Requests of one run: a second or two of a server's CPU, so that the kernel's 10 ms ticks stay below a percent.
    /// Multiples of the concurrency.
    pub(crate) fn count(self) -> u64 {
        match (self.payload, self.concurrency) {
            (Payload::Small, 1) => 15_000,
            (Payload::Small, 8) => 40_000,
            (Payload::Small, _) => 64_000,
            (Payload::Big, 1) => 1_000,
            (Payload::Big, 8) => 1_200,
            (Payload::Big, _) => 1_280,
        }
    }

    /// Requests per server CPU second, ours over tritonserver's, that the median must reach.
    pub(crate) fn bar(self) -> f64 {
        let headline =
            self.protocol == Protocol::Http && self.payload == Payload::Small && self.concurrency == 64;
        if headline { 1.5 } else { 0.95 }
    }
}
