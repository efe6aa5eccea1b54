use crate::cli::flag::Flag;
use crate::cli::grammar::{COUNT, Grammar};

pub(super) const SCHEDULING: &[Flag] = &[
    Flag::works(
        "rate-limit",
        Grammar::Word(&["off", "execution_count"]),
        "Whether instances wait for the resources that their configurations name, in turns by their priorities.",
    )
    .or("off"),
    Flag::works(
        "rate-limit-resource",
        Grammar::Resource,
        "How much there is of a resource, on one device or everywhere. Where it is given, there is nothing of the others; \
         without it, there is as much of each as the greediest instance needs. Only with --rate-limit=execution_count.",
    )
    .repeats(),
    Flag::idle(
        "host-policy",
        Grammar::PolicySetting,
        "Which cores or NUMA node the instances of a policy use: NAME,cpu-cores=0-3.",
        "host policies are not implemented; instances run on all cores",
    )
    .repeats(),
    Flag::idle(
        "buffer-manager-thread-count",
        COUNT,
        "Threads that copy tensors for backends.",
        "tensors are handed to backends as slices of what was received",
    )
    .fine(&["0"]),
];

const OWN_MEMORY: &str = "each model plans its memory on a GPU by itself; see its KV cache parameters";
const NO_STATE: &str = "the server keeps no state on GPUs";
const FROM_80: &str = "a backend says itself which GPUs it needs";
const NO_PEERS: &str = "no model spreads over several GPUs";

pub(super) const DEVICES: &[Flag] = &[
    Flag::works(
        "pinned-memory-pool-byte-size",
        COUNT,
        "Bytes of pinned memory through which tensors go between GPUs and the process. Taken when a tensor first does; what \
         does not fit goes through ordinary memory.",
    )
    .or("268435456"),
    Flag::works(
        "cuda-memory-pool-byte-size",
        Grammar::PerDevice("BYTES"),
        "Bytes of a GPU's memory for tensors that the server puts there. Taken when one is first put there; what does not \
         fit is taken beside it. Without it 64 MiB. What models take for themselves is not in it.",
    )
    .repeats(),
    Flag::idle(
        "cuda-virtual-address-size",
        Grammar::PerDevice("BYTES"),
        "Bytes of a GPU's address space for implicit state.",
        NO_STATE,
    )
    .repeats(),
    Flag::idle("min-supported-compute-capability", Grammar::Number, "The oldest GPU that is used.", FROM_80),
    Flag::idle("enable-peer-access", Grammar::Truth, "Whether GPUs may read each other's memory.", NO_PEERS)
        .fine(&["false"]),
    Flag::idle(
        "model-load-gpu-limit",
        Grammar::PerDevice("FRACTION"),
        "How full a GPU may be for a model to be loaded onto it.",
        OWN_MEMORY,
    )
    .repeats(),
];
