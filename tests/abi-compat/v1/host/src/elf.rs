//! Whether a library's file is whole.
//!
//! The dynamic linker maps what the program headers announce and the process dies of SIGBUS where the file ends before
//! that, so a half-copied library would take the server with it.

use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// `Err` says what is missing. What is no 64-bit ELF file passes: the dynamic linker says that better.
pub(crate) fn check_whole(content: &[u8]) -> Result<(), String> {
    let Ok(header) = FileHeader64::<Endianness>::parse(content) else { return Ok(()) };
    let cut = |needed: &str| format!("the file is cut off: it has {} bytes, {needed}", content.len());
    let endian = header.endian().map_err(|error| error.to_string())?;
    let segments =
        header.program_headers(endian, content).map_err(|_| cut("its program headers lie behind them"))?;
    for segment in segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD) {
        let end = segment.p_offset(endian).checked_add(segment.p_filesz(endian));
        if end.is_none_or(|end| end > content.len() as u64) {
            let needed = end.map_or_else(|| "more".to_owned(), |end| end.to_string());
            return Err(cut(&format!("its segments need {needed}")));
        }
    }
    Ok(())
}
