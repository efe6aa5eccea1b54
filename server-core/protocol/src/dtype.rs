//! The tensor data types: wire names, config names, proto numbers, sizes.

use crate::proto;

/// The type of a tensor's elements; the numbers are those of the proto enum.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Hash)]
#[repr(u32)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool = 1,
    /// Unsigned, 8 bits.
    Uint8 = 2,
    /// Unsigned, 16 bits.
    Uint16 = 3,
    /// Unsigned, 32 bits.
    Uint32 = 4,
    /// Unsigned, 64 bits.
    Uint64 = 5,
    /// Signed, 8 bits.
    Int8 = 6,
    /// Signed, 16 bits.
    Int16 = 7,
    /// Signed, 32 bits.
    Int32 = 8,
    /// Signed, 64 bits.
    Int64 = 9,
    /// IEEE half precision.
    Fp16 = 10,
    /// IEEE single precision.
    Fp32 = 11,
    /// IEEE double precision.
    Fp64 = 12,
    /// Byte strings; `TYPE_STRING` in a config.
    Bytes = 13,
    /// The upper half of a single.
    Bf16 = 14,
}

impl DataType {
    /// All types, in the order of their numbers (which start at 1).
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
        Self::Bf16,
    ];

    /// The name in requests, answers and metadata.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
            Self::Bf16 => "BF16",
        }
    }

    /// The name in a `config.pbtxt`.
    #[must_use]
    pub const fn config_name(self) -> &'static str {
        match self {
            Self::Bool => "TYPE_BOOL",
            Self::Uint8 => "TYPE_UINT8",
            Self::Uint16 => "TYPE_UINT16",
            Self::Uint32 => "TYPE_UINT32",
            Self::Uint64 => "TYPE_UINT64",
            Self::Int8 => "TYPE_INT8",
            Self::Int16 => "TYPE_INT16",
            Self::Int32 => "TYPE_INT32",
            Self::Int64 => "TYPE_INT64",
            Self::Fp16 => "TYPE_FP16",
            Self::Fp32 => "TYPE_FP32",
            Self::Fp64 => "TYPE_FP64",
            Self::Bytes => "TYPE_STRING",
            Self::Bf16 => "TYPE_BF16",
        }
    }

    /// The type of a wire name; names are case-sensitive.
    #[must_use]
    pub fn from_wire_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.wire_name() == name)
    }

    /// The type of a config name (`TYPE_…`).
    #[must_use]
    pub fn from_config_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.config_name() == name)
    }

    /// The type of a proto number; `None` for 0 (`TYPE_INVALID`) and for numbers that are not known.
    #[must_use]
    pub fn from_proto(number: i32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
    }

    /// The proto enum's value.
    #[must_use]
    pub fn to_proto(self) -> proto::DataType {
        // Every number of this enum is one of the proto's; the test below walks all of them.
        proto::DataType::try_from(self as i32).unwrap_or(proto::DataType::TypeInvalid)
    }

    /// Bytes per element; `None` for BYTES, whose elements have their own lengths.
    #[must_use]
    pub const fn byte_size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.wire_name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::DataType;

    #[test]
    fn names_and_numbers_lead_back_to_the_type() {
        for t in DataType::ALL {
            assert_eq!(DataType::from_wire_name(t.wire_name()), Some(t));
            assert_eq!(DataType::from_config_name(t.config_name()), Some(t));
            assert_eq!(DataType::from_proto(t as i32), Some(t));
            assert_eq!(t.to_proto() as i32, t as i32);
            assert_eq!(t.to_proto().as_str_name(), t.config_name());
        }
    }

    #[test]
    fn what_is_no_type_has_none() {
        for number in [i32::MIN, -1, 0, 15, i32::MAX] {
            assert_eq!(DataType::from_proto(number), None);
        }
        assert_eq!(DataType::from_wire_name("int32"), None);
        assert_eq!(DataType::from_wire_name("STRING"), None);
        assert_eq!(DataType::Bytes.byte_size(), None);
        assert_eq!(DataType::Bf16.byte_size(), Some(2));
    }
}
