use trireme_abi::DType;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum DataType {
    Bool = 1,
    Uint8 = 2,
    Uint16 = 3,
    Uint32 = 4,
    Uint64 = 5,
    Int8 = 6,
    Int16 = 7,
    Int32 = 8,
    Int64 = 9,
    Fp16 = 10,
    Fp32 = 11,
    Fp64 = 12,
    /// Elements of varying length.
    Bytes = 13,
    Bf16 = 14,
}

/// (type, name on the wire, bytes an element or 0)
const TYPES: [(DataType, &str, usize); 14] = [
    (DataType::Bool, "BOOL", 1),
    (DataType::Uint8, "UINT8", 1),
    (DataType::Uint16, "UINT16", 2),
    (DataType::Uint32, "UINT32", 4),
    (DataType::Uint64, "UINT64", 8),
    (DataType::Int8, "INT8", 1),
    (DataType::Int16, "INT16", 2),
    (DataType::Int32, "INT32", 4),
    (DataType::Int64, "INT64", 8),
    (DataType::Fp16, "FP16", 2),
    (DataType::Fp32, "FP32", 4),
    (DataType::Fp64, "FP64", 8),
    (DataType::Bytes, "BYTES", 0),
    (DataType::Bf16, "BF16", 2),
];

impl DataType {
    fn entry(self) -> &'static (Self, &'static str, usize) {
        &TYPES[self as usize - 1]
    }

    /// As clients write it: "INT32", "BYTES".
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// As a configuration writes it: "TYPE_INT32", "TYPE_STRING".
    pub fn config_name(self) -> String {
        format!("TYPE_{}", if self == Self::Bytes { "STRING" } else { self.name() })
    }

    /// Bytes of an element; none for [`DataType::Bytes`].
    pub fn byte_size(self) -> Option<usize> {
        Some(self.entry().2).filter(|size| *size > 0)
    }

    /// From the form of a configuration.
    pub fn from_config_name(name: &str) -> Option<Self> {
        TYPES.iter().map(|entry| entry.0).find(|dtype| dtype.config_name() == name)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|entry| entry.1 == name).map(|entry| entry.0)
    }

    pub(crate) fn from_wire(dtype: DType) -> Option<Self> {
        TYPES.get((dtype.0 as usize).checked_sub(1)?).map(|entry| entry.0)
    }

    pub(crate) fn wire(self) -> DType {
        DType(self as u32)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type whose values are the elements of a tensor.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The element type that it stands for.
    const DATA_TYPE: DataType;
    /// Whether every bit pattern is a value, so that a slice of bytes can be looked at as values.
    #[doc(hidden)]
    const PLAIN: bool = true;
    /// From `size_of::<Self>()` little-endian bytes.
    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! elements {
    ($($ty:ty => $dtype:ident;)*) => {$(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DATA_TYPE: DataType = DataType::$dtype;
            fn read(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$ty>()];
                array.copy_from_slice(bytes);
                <$ty>::from_le_bytes(array)
            }
        }
    )*};
}

elements! {
    u8 => Uint8;
    u16 => Uint16;
    u32 => Uint32;
    u64 => Uint64;
    i8 => Int8;
    i16 => Int16;
    i32 => Int32;
    i64 => Int64;
    f32 => Fp32;
    f64 => Fp64;
}

impl sealed::Sealed for bool {}

impl Element for bool {
    const DATA_TYPE: DataType = DataType::Bool;
    const PLAIN: bool = false;
    fn read(bytes: &[u8]) -> Self {
        bytes.first().is_some_and(|byte| *byte != 0)
    }
}

/// Bytes as values of a Rust type; borrowed if they are aligned, otherwise copied once.
pub(crate) fn values<T: Element>(bytes: &[u8]) -> std::borrow::Cow<'_, [T]> {
    if T::PLAIN && cfg!(target_endian = "little") {
        // SAFETY: every bit pattern is a value of a plain element, and `align_to` looks at the alignment.
        let (head, values, tail) = unsafe { bytes.align_to::<T>() };
        if head.is_empty() && tail.is_empty() {
            return values.into();
        }
    }
    // Copied: received bytes have no alignment.
    bytes.chunks_exact(size_of::<T>()).map(T::read).collect::<Vec<T>>().into()
}
