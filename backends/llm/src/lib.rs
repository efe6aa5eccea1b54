//! What every engine for language models shares: checkpoints, tokenizer, chat template, sampling, stop rules.
