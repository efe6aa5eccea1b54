//! The loading side of the backend ABI.
