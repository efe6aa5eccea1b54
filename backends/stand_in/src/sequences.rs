//! Running sums over all elements of the requests of a sequence; every element of the output is the sum so far.

use std::collections::{HashMap, HashSet};

use trireme_sdk::{DataType, Error, Input, Request, Response, Result};

use crate::operation::Kind;

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Key {
    Row(usize),
    Id(u64),
}

/// The sums of an instance.
#[derive(Default)]
pub(crate) struct Sums {
    sums: HashMap<Key, i64>,
    in_batch: HashSet<u64>,
}

impl Sums {
    /// A batch holds no two requests of one sequence.
    pub(crate) fn new_batch(&mut self) {
        self.in_batch.clear();
    }

    pub(crate) fn step(
        &mut self,
        kind: Kind,
        row: usize,
        output: &str,
        request: &Request,
    ) -> Result<Response> {
        let input = request.inputs().next().ok_or_else(|| Error::invalid("an input is needed"))?;
        let mut sum = total(&input)?;
        let (start, end) = (flag(request, "START", false)?, flag(request, "END", false)?);
        if !flag(request, "READY", true)? {
            return answer(output, &input, 0);
        }
        if kind == Kind::Row {
            if !start {
                sum = sum.wrapping_add(self.sums.get(&Key::Row(row)).copied().unwrap_or_default());
            }
            self.sums.insert(Key::Row(row), sum);
            return answer(output, &input, sum);
        }
        let Some(id) = correlation(request)? else {
            return answer(output, &input, sum.wrapping_add(i64::from(start)));
        };
        if !self.in_batch.insert(id) {
            return Err(Error::unsupported("a batch holds two requests of one sequence"));
        }
        let own = if end { id as i64 } else { 0 };
        if kind == Kind::Nothing {
            return answer(output, &input, sum.wrapping_add(own).wrapping_add(i64::from(start)));
        }
        if !start {
            sum = sum.wrapping_add(self.sums.get(&Key::Id(id)).copied().unwrap_or_default());
        }
        sum = sum.wrapping_add(own);
        if end {
            self.sums.remove(&Key::Id(id));
        } else {
            self.sums.insert(Key::Id(id), sum);
        }
        answer(output, &input, sum)
    }
}

fn total(input: &Input<'_>) -> Result<i64> {
    Ok(match input.data_type() {
        DataType::Fp32 => input.values::<f32>()?.iter().sum::<f32>() as i64,
        DataType::Bytes => {
            input.texts()?.iter().map(|text| text.trim().parse::<i64>().unwrap_or_default()).sum()
        }
        _ => input.values::<i32>()?.iter().map(|value| i64::from(*value)).sum(),
    })
}

fn answer(name: &str, input: &Input<'_>, value: i64) -> Result<Response> {
    let (shape, count) = (input.shape(), input.element_count());
    match input.data_type() {
        DataType::Fp32 => Response::new().tensor(name, shape, vec![value as f32; count]),
        DataType::Bytes => Response::new().bytes(name, shape, &vec![value.to_string(); count]),
        _ => Response::new().tensor(name, shape, vec![value as i32; count]),
    }
}

/// The control of this name; with libtorch's naming a number follows it.
fn control<'a>(request: &'a Request, name: &str) -> Option<Input<'a>> {
    request.inputs().find(|input| input.name() == name || input.name().split("__").next() == Some(name))
}

fn flag(request: &Request, name: &str, absent: bool) -> Result<bool> {
    let Some(input) = control(request, name) else { return Ok(absent) };
    Ok(match input.data_type() {
        DataType::Int32 => input.value::<i32>()? != 0,
        DataType::Fp32 => input.value::<f32>()? != 0.0,
        _ => input.value::<bool>()?,
    })
}

/// The correlation id as a number, of a model that has it as a control.
fn correlation(request: &Request) -> Result<Option<u64>> {
    let Some(input) = control(request, "CORRID") else { return Ok(None) };
    Ok(Some(match input.data_type() {
        DataType::Bytes => {
            let text = input.texts()?.into_iter().next().unwrap_or_default();
            text.parse()
                .map_err(|_| Error::invalid(format!("the correlation id '{text}' is not a number")))?
        }
        DataType::Uint64 => input.value::<u64>()?,
        DataType::Int64 => input.value::<i64>()? as u64,
        DataType::Uint32 => input.value::<u32>()?.into(),
        _ => input.value::<i32>()? as u64,
    }))
}
