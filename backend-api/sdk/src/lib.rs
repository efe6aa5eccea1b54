//! The safe API in which a backend is written.
