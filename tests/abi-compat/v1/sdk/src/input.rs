use std::borrow::Cow;

use trireme_abi::{BufferView, InputInfo, MemoryKind, StrView};

use crate::bytes::bytes_elements;
use crate::element::{DataType, Element};
use crate::error::{Error, Result};
use crate::memory::{DeviceView, Memory};
use crate::request::RequestGuard;
use crate::response::OwnBuffer;
use crate::wire::{check, readable, text};

/// An input of a request. Its data is the server's and is read only; it lives as long as the request.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub(crate) guard: &'a RequestGuard,
    pub(crate) index: usize,
    info: InputInfo,
    data_type: DataType,
}

impl<'a> Input<'a> {
    pub(crate) fn new(guard: &'a RequestGuard, index: usize) -> Result<Self> {
        let empty = StrView { data: std::ptr::null(), len: 0 };
        let mut info = InputInfo {
            name: empty,
            dtype: trireme_abi::DType(0),
            buffer_count: 0,
            shape: std::ptr::null(),
            rank: 0,
            byte_size: 0,
        };
        // SAFETY: the guard's handle is live.
        unsafe { check((guard.table().input)(guard.handle(), index, &mut info))? };
        let data_type = DataType::from_wire(info.dtype).ok_or_else(|| {
            Error::unsupported(format!("data type number {} is newer than this backend", info.dtype.0))
        })?;
        Ok(Self { guard, index, info, data_type })
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        // SAFETY: lives as long as the request.
        unsafe { text(self.info.name) }
    }

    /// The type of its elements.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Its dimensions, the batch dimension first if the model batches.
    pub fn shape(&self) -> &'a [i64] {
        if self.info.rank == 0 {
            return &[];
        }
        // SAFETY: lives as long as the request.
        unsafe { std::slice::from_raw_parts(self.info.shape, self.info.rank) }
    }

    /// The number of its elements.
    pub fn element_count(&self) -> usize {
        // The server has checked that the product is the length of the data.
        self.shape().iter().map(|dim| *dim as usize).product()
    }

    /// The length of its data in bytes.
    pub fn byte_size(&self) -> usize {
        self.info.byte_size
    }

    /// The pieces that hold the data, one after the other.
    ///
    /// # Errors
    /// The data is not in the memory of this process.
    pub fn pieces(&self) -> Result<Vec<&'a [u8]>> {
        (0..self.info.buffer_count as usize).map(|number| self.piece(number)).collect()
    }

    /// Where the data is on the GPU of this instance; none if it is in the memory of the process. Only an instance on a GPU,
    /// of a backend that says [`Info::reads_gpu`](crate::Info), is given such inputs. Lives as long as the request.
    ///
    /// # Errors
    /// What the server says.
    pub fn on_device(&self) -> Result<Option<DeviceView>> {
        match self.info.buffer_count {
            0 => Ok(None),
            _ => Ok(DeviceView::of_view(&self.view(0)?)),
        }
    }

    /// The data in one piece of memory of a GPU: where it is, if it is there, otherwise copied.
    ///
    /// # Errors
    /// UNSUPPORTED if nobody serves that GPU; the copy failed.
    pub fn gather_on(&self, device: i32) -> Result<Memory> {
        self.gather(MemoryKind::GPU, device)
    }

    fn gather(&self, kind: MemoryKind, device: i32) -> Result<Memory> {
        let mut buffer = OwnBuffer::empty();
        // SAFETY: the guard's handle is live; on OK the buffer is ours.
        unsafe {
            check((self.guard.table().gather)(self.guard.handle(), self.index, kind, device, &mut buffer))?;
        }
        Ok(Memory::new(buffer))
    }

    fn view(&self, number: usize) -> Result<BufferView> {
        let mut view = BufferView {
            data: std::ptr::null(),
            len: 0,
            kind: MemoryKind::CPU,
            device: 0,
            ready_event: 0,
            fd: -1,
            reserved: 0,
            fd_offset: 0,
        };
        // SAFETY: the guard's handle is live.
        unsafe {
            check((self.guard.table().input_buffer)(self.guard.handle(), self.index, number, &mut view))?
        };
        Ok(view)
    }

    fn piece(&self, number: usize) -> Result<&'a [u8]> {
        let view = self.view(number)?;
        if !readable(view.kind) {
            let what = format!("input '{}' is in memory of kind {}", self.name(), view.kind.0);
            return Err(Error::unsupported(what));
        }
        if view.len == 0 {
            return Ok(&[]);
        }
        // SAFETY: lives as long as the request.
        Ok(unsafe { std::slice::from_raw_parts(view.data.cast::<u8>(), view.len) })
    }

    /// The data in one piece; copied only if it came in several, or is on a GPU.
    ///
    /// # Errors
    /// The copy failed.
    pub fn data(&self) -> Result<Cow<'a, [u8]>> {
        if self.on_device()?.is_some() {
            let memory = self.gather(MemoryKind::CPU, 0)?;
            return Ok(Cow::Owned(memory.bytes().unwrap_or(&[]).to_vec()));
        }
        match self.info.buffer_count {
            0 => Ok(Cow::Borrowed(&[])),
            1 => Ok(Cow::Borrowed(self.piece(0)?)),
            // Copied: the pieces are apart.
            _ => Ok(Cow::Owned(self.pieces()?.concat())),
        }
    }

    /// The elements as values of a Rust type; borrowed if they came in one piece and aligned, otherwise copied once.
    ///
    /// # Errors
    /// The elements are of another type; INVALID_ARG, naming the input.
    pub fn values<T: Element>(&self) -> Result<Cow<'a, [T]>> {
        if self.data_type != T::DATA_TYPE {
            return Err(Error::invalid(format!(
                "input '{}' is {}, expected is {}",
                self.name(),
                self.data_type.name(),
                T::DATA_TYPE.name()
            )));
        }
        let data = self.data()?;
        Ok(match data {
            Cow::Borrowed(bytes) => crate::element::values(bytes),
            Cow::Owned(bytes) => Cow::Owned(crate::element::values(&bytes).into_owned()),
        })
    }

    /// The only element.
    ///
    /// # Errors
    /// Another type, or another number of elements.
    pub fn value<T: Element>(&self) -> Result<T> {
        let values = self.values::<T>()?;
        match values.as_ref() {
            [one] => Ok(*one),
            more => Err(Error::invalid(format!(
                "input '{}' has {} elements, expected is 1",
                self.name(),
                more.len()
            ))),
        }
    }

    /// The elements of a BYTES tensor.
    ///
    /// # Errors
    /// The elements are of another type.
    pub fn bytes(&self) -> Result<Vec<Cow<'a, [u8]>>> {
        if self.data_type != DataType::Bytes {
            let (name, is) = (self.name(), self.data_type.name());
            return Err(Error::invalid(format!("input '{name}' is {is}, expected is BYTES")));
        }
        let invalid =
            |error: crate::bytes::BytesError| Error::internal(format!("input '{}': {error}", self.name()));
        match self.data()? {
            Cow::Borrowed(data) => {
                Ok(bytes_elements(data).map_err(invalid)?.into_iter().map(Cow::Borrowed).collect())
            }
            Cow::Owned(data) => {
                let elements = bytes_elements(&data).map_err(invalid)?;
                Ok(elements.into_iter().map(|element| Cow::Owned(element.to_vec())).collect())
            }
        }
    }

    /// The elements of a BYTES tensor as texts.
    ///
    /// # Errors
    /// Another type, or an element that is not UTF-8.
    pub fn texts(&self) -> Result<Vec<String>> {
        let text = |bytes: Cow<'a, [u8]>| {
            String::from_utf8(bytes.into_owned()).map_err(|_| {
                Error::invalid(format!("input '{}' holds an element that is not UTF-8", self.name()))
            })
        };
        self.bytes()?.into_iter().map(text).collect()
    }
}
