//! Lists of words as the engine takes them: token ids, and behind which of them each word ends.

use trireme_llm::tokenizer::Tokenizer;
use trireme_sdk::{Error, Input, Result};

/// The texts of an input, row by row. Empty ones stand for nothing.
pub(crate) fn rows_of(input: &Input<'_>, rows: usize) -> Result<Vec<Vec<String>>> {
    let texts = input.texts()?;
    let width = texts.len() / rows.max(1);
    Ok((0..rows).map(|row| texts[row * width..(row + 1) * width].to_vec()).collect())
}

/// Two lines for each row, as long as the longest needs: the ids of all words one after the other, filled up with 0, and
/// the index behind each word, filled up with -1. Returns the values and the length of a line.
pub(crate) fn word_lists(
    tokenizer: &Tokenizer,
    name: &str,
    rows: &[Vec<String>],
) -> Result<(Vec<i32>, usize)> {
    let mut lists = Vec::with_capacity(rows.len());
    for words in rows {
        let (mut ids, mut ends) = (Vec::new(), Vec::new());
        for word in words.iter().filter(|word| !word.is_empty()) {
            ids.extend(encode(tokenizer, name, word, false)?);
            ends.push(i32::try_from(ids.len()).unwrap_or(i32::MAX));
        }
        lists.push((ids, ends));
    }
    let width = lists.iter().map(|(ids, ends)| ids.len().max(ends.len())).max().unwrap_or(0);
    let mut values = Vec::with_capacity(lists.len() * 2 * width);
    for (mut ids, mut ends) in lists {
        ids.resize(width, 0);
        ends.resize(width, -1);
        values.append(&mut ids);
        values.append(&mut ends);
    }
    Ok((values, width))
}

/// The token ids of a text, as the wire has them.
pub(crate) fn encode(tokenizer: &Tokenizer, name: &str, text: &str, special: bool) -> Result<Vec<i32>> {
    let ids = tokenizer.encode(text, special);
    let ids = ids.map_err(|error| Error::invalid(format!("input '{name}': {error}")))?;
    Ok(ids.into_iter().map(|id| i32::try_from(id).unwrap_or(i32::MAX)).collect())
}
