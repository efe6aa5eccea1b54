//! End-to-end tests: a real server, real clients.
