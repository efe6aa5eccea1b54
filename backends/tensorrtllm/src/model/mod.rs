//! A decoder's weights on the GPU.

mod angles;
mod dummy;
mod layout;
mod load;
mod weights;

pub use angles::table_bytes;
pub use dummy::fill_with;
pub use layout::WeightLayout;
pub use weights::{LayerWeights, Source, Weights};
