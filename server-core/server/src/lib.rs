//! The Trireme inference server: command line, wiring, signals.
