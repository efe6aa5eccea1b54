//! Sum and difference of two tensors.
