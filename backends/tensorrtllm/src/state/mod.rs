//! What the device keeps of each slot between steps, the host's copy of it, and how changes travel.

mod changes;
mod device_state;
mod records;
mod slots;

pub use changes::Changes;
pub use device_state::DeviceState;
pub use records::{ChangeHead, Choice, DeviceStateArgs, MAX_LOGPROBS, SlotParams, as_bytes};
pub use slots::Slots;
