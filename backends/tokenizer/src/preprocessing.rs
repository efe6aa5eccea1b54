//! `preprocessing`: text to what the engine takes.

use trireme_llm::checkpoint::Vocabulary;
use trireme_llm::tensors::Contract;
use trireme_sdk::{DataType, Element, Error, ModelContext, Request, Response, Result};

use crate::words::{encode, rows_of, word_lists};
use crate::{output_names, parameters};

const CONTRACT: Contract = Contract {
    what: "a model 'preprocessing'",
    inputs: &[
        ("QUERY", DataType::Bytes),
        ("REQUEST_OUTPUT_LEN", DataType::Int32),
        ("BAD_WORDS_DICT", DataType::Bytes),
        ("STOP_WORDS_DICT", DataType::Bytes),
        ("EMBEDDING_BIAS_WORDS", DataType::Bytes),
        ("EMBEDDING_BIAS_WEIGHTS", DataType::Fp32),
        ("END_ID", DataType::Int32),
        ("PAD_ID", DataType::Int32),
    ],
    refused: &["DECODER_QUERY", "IMAGE_BYTES", "IMAGE_URL", "VIDEO_BYTES", "PROMPT_TABLE_EXTRA_ID"],
    outputs: &[
        ("INPUT_ID", DataType::Int32),
        ("REQUEST_INPUT_LEN", DataType::Int32),
        ("BAD_WORDS_IDS", DataType::Int32),
        ("STOP_WORDS_IDS", DataType::Int32),
        ("EMBEDDING_BIAS", DataType::Fp32),
        ("REQUEST_OUTPUT_LEN", DataType::Int32),
        ("OUT_END_ID", DataType::Int32),
        ("OUT_PAD_ID", DataType::Int32),
    ],
    absent: &[
        "DECODER_INPUT_ID",
        "REQUEST_DECODER_INPUT_LEN",
        "OUT_PROMPT_TABLE_EXTRA_IDS",
        "PIXEL_VALUES",
        "ASPECT_RATIO_IDS",
        "ASPECT_RATIO_MASK",
        "CROSS_ATTENTION_MASK",
        "IMAGE_SIZES",
        "IS_VIDEO_INPUT",
    ],
};

/// Bytes that the texts of a row may have in one input, where the configuration does not say.
const TEXT_BYTES: usize = 1 << 20;

pub(crate) struct Preprocessing {
    model: String,
    vocabulary: Vocabulary,
    text_bytes: usize,
    outputs: Vec<String>,
    add_special: bool,
    batches: bool,
}

impl Preprocessing {
    pub(crate) fn load(context: &ModelContext) -> Result<Self> {
        CONTRACT.check(&context.config)?;
        parameters::check(context, &["tokenizer_dir", "add_special_tokens", "max_text_bytes"])?;
        Ok(Self {
            model: context.name.clone(),
            text_bytes: parameters::count(context, "max_text_bytes")?.unwrap_or(TEXT_BYTES),
            vocabulary: parameters::vocabulary(context)?,
            outputs: output_names(&context.config)?,
            add_special: parameters::flag(context, "add_special_tokens", true)?,
            batches: context.config.max_batch_size() > 0,
        })
    }

    pub(crate) fn answer(&self, request: &Request) -> Result<Response> {
        CONTRACT.refuse(request)?;
        let rows = (request.batch_size() as usize).max(1);
        let texts = request.input("QUERY")?.texts()?;
        if texts.len() != rows {
            let count = texts.len();
            return Err(Error::invalid(format!("input 'QUERY' has {count} texts for a batch of {rows}")));
        }
        for name in ["QUERY", "BAD_WORDS_DICT", "STOP_WORDS_DICT", "EMBEDDING_BIAS_WORDS"] {
            if let Some(input) = request.optional_input(name) {
                self.check_lengths(name, &rows_of(&input, rows)?)?;
            }
        }
        let tokenizer = &self.vocabulary.tokenizer;
        let lines = texts.iter().map(|text| encode(tokenizer, "QUERY", text, self.add_special));
        let lines = lines.collect::<Result<Vec<_>>>()?;
        if let Some(row) = lines.iter().position(Vec::is_empty) {
            return Err(Error::invalid(format!("input 'QUERY': text {row} is empty")));
        }
        let end_ids = self.per_row(request, "END_ID", rows)?;
        let pad_ids = self.per_row(request, "PAD_ID", rows)?;
        // An engine that is told of one end knows no other, so a model with several of them is told of none.
        let end_ids = end_ids.or_else(|| match *self.vocabulary.eos_ids {
            [only] => i32::try_from(only).ok().map(|id| vec![id; rows]),
            _ => None,
        });
        let own_pad = self.vocabulary.pad_id.and_then(|id| i32::try_from(id).ok());
        let pad_ids = pad_ids.or(own_pad.map(|id| vec![id; rows])).or_else(|| end_ids.clone());
        let width = lines.iter().map(Vec::len).max().unwrap_or(0);
        let lengths = lines.iter().map(|line| line.len() as i32).collect();
        let padded = lines.into_iter().enumerate().flat_map(|(row, mut line)| {
            line.resize(width, pad_ids.as_ref().map_or(0, |ids| ids[row]));
            line
        });
        let mut out = Out { model: self, rows, response: Response::new() };
        out.add("INPUT_ID", &[width], padded.collect::<Vec<i32>>())?;
        out.add("REQUEST_INPUT_LEN", &[1], lengths)?;
        for (input, output) in [("BAD_WORDS_DICT", "BAD_WORDS_IDS"), ("STOP_WORDS_DICT", "STOP_WORDS_IDS")] {
            let Some(given) = request.optional_input(input) else { continue };
            let (values, width) = word_lists(tokenizer, input, &rows_of(&given, rows)?)?;
            if width > 0 {
                out.add(output, &[2, width], values)?;
            }
        }
        if let Some(bias) = self.bias(request, rows)? {
            out.add("EMBEDDING_BIAS", &[self.vocabulary.size], bias)?;
        }
        if let Some(lengths) = self.per_row(request, "REQUEST_OUTPUT_LEN", rows)? {
            out.add("REQUEST_OUTPUT_LEN", &[1], lengths)?;
        }
        for (name, ids) in [("OUT_END_ID", end_ids), ("OUT_PAD_ID", pad_ids)] {
            if let Some(ids) = ids {
                out.add(name, &[1], ids)?;
            }
        }
        Ok(out.response)
    }

    /// Texts of megabytes are refused before they cost anything.
    fn check_lengths(&self, name: &str, rows: &[Vec<String>]) -> Result<()> {
        let bytes = rows.iter().map(|texts| texts.iter().map(String::len).sum::<usize>());
        match bytes.enumerate().find(|(_, bytes)| *bytes > self.text_bytes) {
            None => Ok(()),
            Some((row, bytes)) => Err(Error::invalid(format!(
                "input '{name}', row {row}, has {bytes} bytes of text, the model '{}' takes {} \
                 (its parameter 'max_text_bytes')",
                self.model, self.text_bytes
            ))),
        }
    }

    /// A number for each row; one may stand for all.
    fn per_row(&self, request: &Request, name: &str, rows: usize) -> Result<Option<Vec<i32>>> {
        let Some(input) = request.optional_input(name) else { return Ok(None) };
        let values = input.values::<i32>()?;
        match values.len() {
            0 => Ok(None),
            1 => Ok(Some(vec![values[0]; rows])),
            count if count == rows => Ok(Some(values.into_owned())),
            count => Err(Error::invalid(format!("input '{name}' has {count} numbers for a batch of {rows}"))),
        }
    }

    /// What is added to the score of each token: every token of a word gets the word's weight.
    fn bias(&self, request: &Request, rows: usize) -> Result<Option<Vec<f32>>> {
        let (words, weights) = (
            request.optional_input("EMBEDDING_BIAS_WORDS"),
            request.optional_input("EMBEDDING_BIAS_WEIGHTS"),
        );
        let words = words.map(|words| rows_of(&words, rows)).transpose()?.unwrap_or_default();
        let weights = weights.map(|weights| weights.values::<f32>()).transpose()?.unwrap_or_default();
        let count: usize = words.iter().map(Vec::len).sum();
        if count != weights.len() {
            let weights = weights.len();
            return Err(Error::invalid(format!(
                "inputs 'EMBEDDING_BIAS_WORDS' and 'EMBEDDING_BIAS_WEIGHTS' must go together, they have {count} and {weights} elements"
            )));
        }
        if count == 0 {
            return Ok(None);
        }
        let size = self.vocabulary.size;
        let mut bias = vec![0.0; rows * size];
        let pairs =
            words.iter().enumerate().flat_map(|(row, words)| words.iter().map(move |word| (row, word)));
        for ((row, word), weight) in pairs.zip(weights.iter()).filter(|((_, word), _)| !word.is_empty()) {
            for id in encode(&self.vocabulary.tokenizer, "EMBEDDING_BIAS_WORDS", word, false)? {
                let at = usize::try_from(id).ok().filter(|id| *id < size);
                if let Some(slot) = at.and_then(|id| bias.get_mut(row * size + id)) {
                    *slot += weight;
                }
            }
        }
        Ok(Some(bias))
    }
}

/// An answer in the making: what the configuration does not have is left out.
struct Out<'a> {
    model: &'a Preprocessing,
    rows: usize,
    response: Response,
}

impl Out<'_> {
    fn add<T: Element>(&mut self, name: &str, dims: &[usize], values: Vec<T>) -> Result<()> {
        if !self.model.outputs.iter().any(|output| output == name) {
            return Ok(());
        }
        let rows = self.model.batches.then_some(self.rows as i64);
        let shape: Vec<i64> = rows.into_iter().chain(dims.iter().map(|dim| *dim as i64)).collect();
        let response = std::mem::take(&mut self.response);
        self.response = response.tensor(name, &shape, values)?;
        Ok(())
    }
}
