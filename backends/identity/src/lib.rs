//! Returns its inputs.
