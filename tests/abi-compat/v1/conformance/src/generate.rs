//! Requests that the kit makes of a configuration alone: small whole numbers, and texts of their digits.

use crate::case::{Case, CaseInput};
use crate::config::Config;
use crate::declared::Expectation;
use crate::element::put_small;

/// A request of so many rows, with `size` in the place of each free dimension, whose elements begin at `first`.
pub(crate) fn request(config: &Config, rows: u32, size: i64, first: u8) -> Case {
    let make = |index: usize| {
        let tensor = &config.inputs[index];
        let lead = config.batches().then_some(i64::from(rows));
        let dims = tensor.dims.iter().map(|dim| if *dim < 0 { size } else { *dim });
        let shape: Vec<i64> = lead.into_iter().chain(dims).collect();
        let count = shape.iter().product::<i64>();
        let mut data = Vec::new();
        for number in 0..count {
            put_small(tensor.dtype, first + (number % 3) as u8, &mut data);
        }
        CaseInput { index: index as u16, dtype: tensor.dtype, shape, data }
    };
    Case {
        name: format!("{rows} rows, free dimensions {size}"),
        inputs: (0..config.inputs.len()).map(make).collect(),
        parameters: Vec::new(),
        rows,
        expected: Expectation::default(),
        outputs: Vec::new(),
    }
}

/// Whether the model has a dimension to choose, the batch dimension aside.
pub(crate) fn has_free_dimension(config: &Config) -> bool {
    config.inputs.iter().any(|input| input.dims.iter().any(|dim| *dim < 0))
}
