//! config.pbtxt and JSON into a checked model configuration.
