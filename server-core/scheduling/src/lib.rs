//! Batching and queueing as pure state machines on a virtual clock.
