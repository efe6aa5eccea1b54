//! The metric catalogue, its text form, and logging.
