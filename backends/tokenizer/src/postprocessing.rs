//! `postprocessing`: what the engine answers to text.

use trireme_llm::checkpoint::Vocabulary;
use trireme_llm::tensors::Contract;
use trireme_sdk::{DataType, Error, ModelContext, Request, Response, Result};

use crate::{output_names, parameters};

/// Inputs that come back as they are, and under which name.
const PASSED: &[(&str, &str)] = &[
    ("CUM_LOG_PROBS", "OUT_CUM_LOG_PROBS"),
    ("OUTPUT_LOG_PROBS", "OUT_OUTPUT_LOG_PROBS"),
    ("BATCH_INDEX", "OUT_BATCH_INDEX"),
    ("SEQUENCE_INDEX", "OUT_SEQUENCE_INDEX"),
];

const CONTRACT: Contract = Contract {
    what: "a model 'postprocessing'",
    inputs: &[
        ("TOKENS_BATCH", DataType::Int32),
        ("SEQUENCE_LENGTH", DataType::Int32),
        ("CUM_LOG_PROBS", DataType::Fp32),
        ("OUTPUT_LOG_PROBS", DataType::Fp32),
        ("BATCH_INDEX", DataType::Int32),
        ("SEQUENCE_INDEX", DataType::Int32),
    ],
    refused: &["CONTEXT_LOGITS", "GENERATION_LOGITS"],
    outputs: &[
        ("OUTPUT", DataType::Bytes),
        ("OUT_CUM_LOG_PROBS", DataType::Fp32),
        ("OUT_OUTPUT_LOG_PROBS", DataType::Fp32),
        ("OUT_BATCH_INDEX", DataType::Int32),
        ("OUT_SEQUENCE_INDEX", DataType::Int32),
    ],
    absent: &["OUT_CONTEXT_LOGITS", "OUT_GENERATION_LOGITS"],
};

pub(crate) struct Postprocessing {
    vocabulary: Vocabulary,
    outputs: Vec<String>,
    skip_special: bool,
    batches: bool,
}

impl Postprocessing {
    pub(crate) fn load(context: &ModelContext) -> Result<Self> {
        CONTRACT.check(&context.config)?;
        parameters::check(context, &["tokenizer_dir", "skip_special_tokens"])?;
        Ok(Self {
            vocabulary: parameters::vocabulary(context)?,
            outputs: output_names(&context.config)?,
            skip_special: parameters::flag(context, "skip_special_tokens", true)?,
            batches: context.config.max_batch_size() > 0,
        })
    }

    pub(crate) fn answer(&self, request: &Request) -> Result<Response> {
        CONTRACT.refuse(request)?;
        let tokens = request.input("TOKENS_BATCH")?;
        let (shape, values) = (tokens.shape(), tokens.values::<i32>()?);
        let (width, lines) = match shape.split_last() {
            Some((width, lines)) if !lines.is_empty() => (usize::try_from(*width).unwrap_or(0), lines),
            _ => (values.len(), &[1][..]),
        };
        let count = usize::try_from(lines.iter().product::<i64>()).unwrap_or(0);
        let lengths =
            request.optional_input("SEQUENCE_LENGTH").map(|input| input.values::<i32>()).transpose()?;
        if let Some(lengths) = lengths.as_ref().filter(|lengths| lengths.len() != count) {
            let found = lengths.len();
            return Err(Error::invalid(format!(
                "input 'SEQUENCE_LENGTH' has {found} numbers, 'TOKENS_BATCH' {count} sequences"
            )));
        }
        let texts = (0..count).map(|line| {
            let length = match &lengths {
                None => width,
                Some(lengths) => usize::try_from(lengths[line])
                    .ok()
                    .filter(|length| *length <= width)
                    .ok_or_else(|| {
                        Error::invalid(format!(
                            "input 'SEQUENCE_LENGTH' is {}, 'TOKENS_BATCH' has {width} tokens",
                            lengths[line]
                        ))
                    })?,
            };
            self.text(&values[line * width..line * width + length])
        });
        let texts = texts.collect::<Result<Vec<String>>>()?;
        // One text for each sequence; a configuration without a dimension for them has one sequence.
        let shape: Vec<i64> = match (self.batches, lines.len()) {
            (true, 1) => vec![lines[0], 1],
            _ => lines.to_vec(),
        };
        let mut response = Response::new().bytes("OUTPUT", &shape, &texts)?;
        for (input, output) in PASSED.iter().filter(|(_, output)| self.outputs.iter().any(|o| o == output)) {
            if let Some(given) = request.optional_input(input) {
                response = response.forward(output, request, &given)?;
            }
        }
        Ok(response)
    }

    fn text(&self, ids: &[i32]) -> Result<String> {
        let id = |id: &i32| {
            u32::try_from(*id)
                .map_err(|_| Error::invalid(format!("input 'TOKENS_BATCH': {id} is no token id")))
        };
        let ids = ids.iter().map(id).collect::<Result<Vec<u32>>>()?;
        let tokenizer = &self.vocabulary.tokenizer;
        // With its beginning a text is whole, otherwise it is a part of one: of a stream, or without its prompt.
        if ids.first().is_some_and(|first| tokenizer.is_special_id(*first)) {
            let text = tokenizer.decode(&ids, self.skip_special);
            return text.map_err(|error| Error::internal(format!("input 'TOKENS_BATCH': {error}")));
        }
        Ok(tokenizer.decode_part(&ids, self.skip_special))
    }
}
