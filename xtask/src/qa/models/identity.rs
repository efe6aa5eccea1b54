//! `<format>[_nobatch]_zero_<n>_<type>`: n inputs that come back, of any size or reshaped.

use std::path::Path;

use anyhow::Result;

use super::model::{BOOL, FLOAT16, FLOAT32, FORMATS, Format, INT32, Model, OBJECT, Tensor, Type};

/// One pair of input and output: (input, as the model sees it, output, as the model makes it).
pub(super) type Pair = (Vec<i64>, Vec<i64>, Vec<i64>, Vec<i64>);

/// Shapes that come back as they were.
pub(super) fn plain(shape: &[i64], count: usize) -> Vec<Pair> {
    let shape = shape.to_vec();
    vec![(shape.clone(), shape.clone(), shape.clone(), shape); count]
}

fn reshaped(shapes: &[(&[i64], &[i64])]) -> Vec<Pair> {
    let pair =
        |(shape, inner): &(&[i64], &[i64])| (shape.to_vec(), inner.to_vec(), shape.to_vec(), inner.to_vec());
    shapes.iter().map(pair).collect()
}

fn reshaped_inputs(shapes: &[(&[i64], &[i64])]) -> Vec<Pair> {
    let pair =
        |(shape, inner): &(&[i64], &[i64])| (shape.to_vec(), inner.to_vec(), inner.to_vec(), inner.to_vec());
    shapes.iter().map(pair).collect()
}

/// Of the shapes that an input is reshaped to, those that have a longer form in upstream's TensorRT models.
fn three_dimensional(mut pairs: Vec<Pair>) -> Vec<Pair> {
    let longer: [(&[i64], &[i64]); 4] =
        [(&[], &[1, 1, 1]), (&[16], &[2, 2, 4]), (&[1, 2], &[1, 2, 1]), (&[1], &[1, 1, 1])];
    for (shape, inner, shown, made) in &mut pairs {
        let Some((_, long)) = longer.iter().find(|(short, _)| short == inner) else { continue };
        if shown != shape || pairs_of_one(shape, inner) {
            *shown = long.to_vec();
        }
        *inner = long.to_vec();
        *made = long.to_vec();
    }
    pairs
}

/// The last input of the models that reshape their inputs only is of one element and comes back as it was seen.
fn pairs_of_one(shape: &[i64], inner: &[i64]) -> bool {
    shape == [1] && inner == [1]
}

/// The models of `qa_identity_model_repository`.
pub(super) fn zeros() -> Vec<(Type, Vec<Pair>)> {
    vec![
        (BOOL, plain(&[-1], 1)),
        (FLOAT32, plain(&[-1], 1)),
        (FLOAT32, plain(&[-1], 3)),
        (FLOAT16, plain(&[-1, -1], 1)),
        (FLOAT16, plain(&[-1, -1], 3)),
        (OBJECT, plain(&[-1], 1)),
        (OBJECT, plain(&[-1, -1], 3)),
    ]
}

/// The models of `qa_reshape_model_repository`, and whether there is one without batches.
pub(super) fn reshapes() -> Vec<(Type, Vec<Pair>, bool)> {
    let three: [(&[i64], &[i64]); 3] = [(&[4, 4], &[16]), (&[2], &[1, 2]), (&[2, 2, 3], &[3, 2, 2])];
    let four: [(&[i64], &[i64]); 4] = [three[0], three[1], three[2], (&[1], &[1])];
    vec![
        (OBJECT, reshaped(&[(&[1], &[])]), false),
        (FLOAT32, reshaped(&[(&[1], &[])]), false),
        (FLOAT32, reshaped(&[(&[1], &[]), (&[8], &[4, 1, 2])]), false),
        (FLOAT32, reshaped(&three), true),
        (FLOAT32, reshaped_inputs(&four), true),
        (INT32, reshaped(&[(&[2, 4, -1, 6], &[8, -1, 1, 6])]), true),
        (INT32, reshaped(&[(&[1, -1, 1], &[-1]), (&[-1], &[1, -1, 1]), (&[2, 2, 3], &[3, 2, 2])]), true),
        (INT32, reshaped_inputs(&[(&[-1, 1], &[1, -1]), (&[2], &[1, 2])]), true),
    ]
}

pub(super) fn write(data: &Path) -> Result<()> {
    let (zero, reshape) =
        (data.join("qa_identity_model_repository"), data.join("qa_reshape_model_repository"));
    for format in FORMATS.into_iter().filter(|format| !format.is("openvino")) {
        for max_batch_size in [8, 0] {
            for (data_type, pairs) in zeros() {
                model(format, max_batch_size, data_type, &pairs).write(&zero)?;
            }
            for (data_type, pairs, without_batch) in reshapes() {
                // TensorRT has at least one dimension beside the batch, three where it reshapes.
                let plan = format.is("plan");
                if max_batch_size > 0 || without_batch || plan {
                    let pairs = if plan { three_dimensional(pairs) } else { pairs };
                    model(format, max_batch_size, data_type, &pairs).write(&reshape)?;
                }
            }
        }
    }
    Ok(())
}

fn model(format: Format, max_batch_size: u32, data_type: Type, pairs: &[Pair]) -> Model {
    let nobatch = if max_batch_size == 0 { "_nobatch" } else { "" };
    let tensor = |name: &str, number: usize, shape: &[i64], inner: &[i64]| {
        let mut tensor = Tensor::new(format.numbered(name, number), data_type, shape);
        tensor.reshape = (shape != inner).then(|| inner.to_vec());
        tensor
    };
    let each = pairs.iter().enumerate();
    Model {
        name: format!("{}{nobatch}_zero_{}_{}", format.prefix, pairs.len(), data_type.0),
        format: Some(format),
        max_batch_size,
        versions: 1,
        version_policy: None,
        inputs: each.clone().map(|(n, (shape, inner, ..))| tensor("INPUT", n, shape, inner)).collect(),
        outputs: each.map(|(n, (.., shape, inner))| tensor("OUTPUT", n, shape, inner)).collect(),
        extra: String::new(),
    }
}
