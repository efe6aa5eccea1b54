//! A decoupled model: one answer for each input element.
