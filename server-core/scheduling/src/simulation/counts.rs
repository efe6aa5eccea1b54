//! How much was simulated.

use std::ops::AddAssign;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $shown:literal,)*) => {
        /// Numbers by kind.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Every number with its name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($shown, self.$name),)*].into_iter()
            }
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    arrivals: "arrivals",
    cancels: "cancellations",
    answers: "answers before the last",
    dones: "last answers",
    frees: "executions ended",
    downs: "instances failed",
    ups: "instances back",
    retires: "instances retired",
    adds: "instances added",
    closes: "closes",
    reloads: "reloads",
    wakes: "wake-ups",
    /// From here on what came of it.
    refused: "refused",
    hits: "cache hits",
    batches: "batches",
    batched: "requests in batches",
    worlds: "worlds",
}

impl Counts {
    /// What was reported to dispatchers.
    pub fn events(&self) -> u64 {
        let requests = self.arrivals + self.cancels + self.answers + self.dones;
        let instances = self.frees + self.downs + self.ups + self.retires + self.adds;
        requests + instances + self.closes + self.reloads + self.wakes
    }
}
