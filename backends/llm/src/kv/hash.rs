//! What is in a full block: a chain of SHA-256, so that equal hashes mean equal tokens from the beginning.

use sha2::{Digest, Sha256};

/// Identifies the tokens of a block and of all before it.
pub type BlockHash = [u8; 32];

/// The beginning of a chain. Different salts share nothing.
pub fn root_hash(salt: &[u8]) -> BlockHash {
    Sha256::digest(salt).into()
}

/// The block of `tokens` that follows `parent`.
pub fn block_hash(parent: &BlockHash, tokens: &[u32]) -> BlockHash {
    let mut hash = Sha256::new_with_prefix(parent);
    tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
    hash.finalize().into()
}
