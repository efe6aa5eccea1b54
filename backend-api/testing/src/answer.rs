use trireme_host::{Status, Value};
use trireme_sdk::{DataType, Element};

/// One answer, copied out of the backend's memory.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The tensors, in the order in which they were sent.
    pub outputs: Vec<Tensor>,
    /// The parameters for the client.
    pub parameters: Vec<(String, Value)>,
    /// Set if it is an error.
    pub error: Option<Status>,
    /// The status and the object, if it answers a call of OpenAI's API.
    pub document: Option<(u16, String)>,
    /// Whether it is the last one.
    pub is_final: bool,
}

/// One tensor of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its type's number, that of [`DataType`].
    pub data_type: u32,
    /// Its dimensions, the batch dimension first if the model batches.
    pub shape: Vec<i64>,
    /// Its bytes: little endian, C order, BYTES framed.
    pub data: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(response: trireme_host::Response, is_final: bool) -> Self {
        let tensor = |output: trireme_host::Output| Tensor {
            name: output.name,
            data_type: output.dtype.0,
            shape: output.shape.to_vec(),
            data: output.data.to_vec(),
        };
        let outputs = response.outputs.into_iter().map(tensor).collect();
        let document = response.document.map(|document| (document.status, document.body));
        Self { outputs, parameters: response.parameters, error: response.error, document, is_final }
    }

    /// The output of this name; panics if there is none.
    pub fn output(&self, name: &str) -> &Tensor {
        let found = self.outputs.iter().find(|tensor| tensor.name == name);
        found.unwrap_or_else(|| panic!("no output '{name}' in {self:?}"))
    }

    /// Its dimensions.
    pub fn shape(&self, name: &str) -> &[i64] {
        &self.output(name).shape
    }

    /// Its elements; panics if they are of another type.
    pub fn values<T: Element>(&self, name: &str) -> Vec<T> {
        let tensor = self.output(name);
        assert_eq!(tensor.data_type, T::DATA_TYPE as u32, "type of output '{name}'");
        tensor.data.chunks_exact(size_of::<T>()).map(T::read).collect()
    }

    /// Its elements as texts; panics if it is not BYTES or not UTF-8.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let tensor = self.output(name);
        assert_eq!(tensor.data_type, DataType::Bytes as u32, "type of output '{name}'");
        let elements = trireme_sdk::bytes_elements(&tensor.data);
        let elements = elements.unwrap_or_else(|error| panic!("output '{name}': {error}"));
        elements.into_iter().map(|element| String::from_utf8_lossy(element).into_owned()).collect()
    }
}
