use serde_json::Value;
use trireme_sdk::DataType;

/// What the harness needs to know of a configuration.
pub(crate) struct Config {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) batches: bool,
    pub(crate) instances: u32,
}

/// An input or output. `dims` has no batch dimension; -1 is free.
pub(crate) struct Tensor {
    pub(crate) name: String,
    data_type: DataType,
    dims: Vec<i64>,
}

impl Config {
    /// Panics with what is wrong: the configuration is part of the test.
    pub(crate) fn parse(text: &str) -> Self {
        let json: Value = serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("the configuration is not JSON: {error}"));
        let groups = json["instance_group"].as_array().cloned().unwrap_or_default();
        let count = |group: &Value| group["count"].as_u64().unwrap_or(1).max(1);
        let instances = groups.iter().map(count).sum::<u64>().clamp(1, 64);
        Self {
            inputs: tensors(&json["input"]),
            outputs: tensors(&json["output"]),
            batches: json["max_batch_size"].as_u64().unwrap_or(0) > 0,
            instances: instances as u32,
        }
    }

    pub(crate) fn input_index(&self, name: &str) -> usize {
        let index = self.inputs.iter().position(|tensor| tensor.name == name);
        index.unwrap_or_else(|| panic!("the configuration has no input '{name}'"))
    }
}

fn tensors(list: &Value) -> Vec<Tensor> {
    let one = |tensor: &Value| {
        let name = tensor["name"].as_str().unwrap_or_default().to_owned();
        let type_name = tensor["data_type"].as_str().unwrap_or_default();
        let data_type = DataType::from_config_name(type_name)
            .unwrap_or_else(|| panic!("tensor '{name}' has the data type '{type_name}': write TYPE_INT32"));
        let dims = tensor["dims"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
        Tensor { name, data_type, dims }
    };
    list.as_array().into_iter().flatten().map(one).collect()
}

impl Tensor {
    /// What is wrong with a tensor that should be this one.
    pub(crate) fn difference(&self, batches: bool, data_type: u32, shape: &[i64]) -> Option<String> {
        let name = &self.name;
        if self.data_type as u32 != data_type {
            return Some(format!(
                "tensor '{name}' is of type {data_type}, configured is {:?}",
                self.data_type
            ));
        }
        let own = if batches { shape.get(1..) } else { Some(shape) };
        let fits = |(dim, size): (&i64, &i64)| *dim == -1 || dim == size;
        let fit = own.is_some_and(|own| own.len() == self.dims.len() && self.dims.iter().zip(own).all(fits));
        let batch = if batches { " behind the batch dimension" } else { "" };
        (!fit)
            .then(|| format!("tensor '{name}' has the shape {shape:?}, configured is {:?}{batch}", self.dims))
    }
}
