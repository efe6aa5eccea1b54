use abi_stable::StableAbi;

/// An open enum of element types; the numbers are those of `inference.DataType`. Elements are in the byte order of the
/// machine, without gaps. A host answers INTERNAL in the place of an output of a type that it does not know, a backend
/// UNSUPPORTED to an input.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct DType(pub u32);

impl DType {
    /// One byte, 0 or 1.
    pub const BOOL: Self = Self(1);
    pub const UINT8: Self = Self(2);
    pub const UINT16: Self = Self(3);
    pub const UINT32: Self = Self(4);
    pub const UINT64: Self = Self(5);
    pub const INT8: Self = Self(6);
    pub const INT16: Self = Self(7);
    pub const INT32: Self = Self(8);
    pub const INT64: Self = Self(9);
    pub const FP16: Self = Self(10);
    pub const FP32: Self = Self(11);
    pub const FP64: Self = Self(12);
    /// Elements of varying length, each a little-endian `u32` length and that many bytes.
    pub const BYTES: Self = Self(13);
    pub const BF16: Self = Self(14);
}
