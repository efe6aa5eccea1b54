//! Wire types of the backend ABI: plain C, no logic.
