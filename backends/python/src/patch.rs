//! What `auto_complete_config` has added to a configuration.

use serde_json::Value;
use trireme_sdk::{ConfigPatch, DataType, Error, Result, TensorConfig};

/// What `after` has beyond `before`; none if they are alike.
pub(crate) fn between(before: &Value, after: &Value) -> Result<Option<ConfigPatch>> {
    let mut patch = ConfigPatch::new().extending();
    let mut changed = false;
    let mut differs = |field: &str| {
        let differs = before[field] != after[field];
        changed |= differs;
        differs
    };
    if differs("max_batch_size") {
        let size = after["max_batch_size"].as_u64().and_then(|size| u32::try_from(size).ok());
        patch = patch.max_batch_size(size.ok_or_else(|| wrong("max_batch_size is no number of 32 bits"))?);
    }
    if differs("input") {
        for tensor in after["input"].as_array().into_iter().flatten() {
            patch = patch.input(tensor_of(tensor)?);
        }
    }
    if differs("output") {
        for tensor in after["output"].as_array().into_iter().flatten() {
            patch = patch.output(tensor_of(tensor)?);
        }
    }
    if differs("dynamic_batching") && !after["dynamic_batching"].is_null() {
        patch = patch.dynamic_batching();
    }
    if differs("model_transaction_policy") {
        patch = patch.decoupled(after["model_transaction_policy"]["decoupled"].as_bool().unwrap_or(false));
    }
    Ok(changed.then_some(patch))
}

fn wrong(what: &str) -> Error {
    Error::invalid(format!("auto_complete_config: {what}"))
}

fn tensor_of(tensor: &Value) -> Result<TensorConfig> {
    let name = tensor["name"].as_str().unwrap_or_default();
    let field = |field: &str, is: &str| wrong(&format!("tensor '{name}': {field} {} {is}", tensor[field]));
    let data_type = tensor["data_type"].as_str().and_then(DataType::from_config_name);
    let dims = tensor["dims"].as_array().and_then(|dims| dims.iter().map(Value::as_i64).collect());
    Ok(TensorConfig {
        name: name.to_owned(),
        data_type: data_type.ok_or_else(|| field("data_type", "is no data type, such as TYPE_FP32"))?,
        dims: dims.ok_or_else(|| field("dims", "is no list of whole numbers"))?,
        optional: tensor["optional"].as_bool().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_new_is_proposed() {
        let before = json!({ "max_batch_size": 0, "input": [], "output": [] });
        assert!(between(&before, &before).unwrap().is_none());
        let mut after = before.clone();
        after["input"] = json!([{ "name": "IN", "data_type": "TYPE_FP32", "dims": [4], "optional": true }]);
        after["dynamic_batching"] = json!({});
        let patch = serde_json::to_value(between(&before, &after).unwrap().unwrap()).unwrap();
        let input = json!([{ "name": "IN", "data_type": "TYPE_FP32", "dims": [4], "optional": true }]);
        assert_eq!(patch, json!({ "extends": true, "input": input, "dynamic_batching": {} }));
        after["input"][0]["data_type"] = json!("FP32");
        let error = between(&before, &after).unwrap_err();
        assert!(error.message.contains("'IN': data_type \"FP32\" is no data type"), "{error}");
    }
}
