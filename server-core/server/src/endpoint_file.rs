//! `--endpoint-file`: where a server can be reached, for who starts it with free ports and does not know its node.
//!
//! ```text
//! http=http://node7:41231
//! grpc=node7:41232
//! metrics=http://node7:41233/metrics
//! ```
//! The file is there exactly while the server takes requests: it appears whole once the models are loaded, and goes when
//! the server is told to end. After a crash an old one may be left; the next server of that name replaces it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The addresses of the front ends that are on.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
}

impl Endpoints {
    /// One `name=address` a line. An address of all interfaces is given by `host`, the name of this machine.
    fn text(&self, host: &str) -> String {
        let at = |address: SocketAddr| {
            if address.ip().is_unspecified() {
                format!("{host}:{}", address.port())
            } else {
                address.to_string()
            }
        };
        let http = self.http.map(|address| format!("http=http://{}\n", at(address)));
        let grpc = self.grpc.map(|address| format!("grpc={}\n", at(address)));
        let metrics = self.metrics.map(|address| format!("metrics=http://{}/metrics\n", at(address)));
        [http, grpc, metrics].into_iter().flatten().collect()
    }
}

/// A written endpoint file; dropping it takes the file away.
#[derive(Debug)]
pub(crate) struct EndpointFile {
    path: PathBuf,
    text: String,
}

impl EndpointFile {
    /// Writes the file beside its place and moves it there, so that nobody reads half of it.
    ///
    /// # Errors
    /// If the folder is missing or cannot be written.
    pub(crate) fn write(path: &Path, endpoints: &Endpoints) -> anyhow::Result<Self> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let text = endpoints.text(&host);
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            // A temporary file is its owner's alone; this one is for clients.
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(readable)?;
            file.persist(path)?;
            Ok(())
        };
        write().with_context(|| format!("--endpoint-file: cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), text })
    }
}

impl Drop for EndpointFile {
    fn drop(&mut self) {
        // A server that took the place of this one may have written its own meanwhile.
        let is_ours = std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("--endpoint-file: cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_while_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.endpoint");
        let endpoints = Endpoints {
            http: Some("127.0.0.1:8000".parse().unwrap()),
            grpc: Some("[::1]:8001".parse().unwrap()),
            metrics: None,
        };
        let file = EndpointFile::write(&path, &endpoints).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "http=http://127.0.0.1:8000\ngrpc=[::1]:8001\n");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing else is left");
        drop(file);
        assert!(!path.exists());
        let file = EndpointFile::write(&path, &endpoints).unwrap();
        let successor = EndpointFile::write(&path, &Endpoints::default()).unwrap();
        drop(file);
        assert!(path.exists(), "it is its successor's");
        drop(successor);
        assert!(!path.exists());
    }

    #[test]
    fn all_interfaces_are_the_name_of_the_machine() {
        let endpoints = Endpoints { metrics: Some("0.0.0.0:9".parse().unwrap()), ..Endpoints::default() };
        assert_eq!(endpoints.text("node7"), "metrics=http://node7:9/metrics\n");
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = EndpointFile::write(Path::new("/nowhere/a"), &Endpoints::default()).unwrap_err();
        assert_eq!(error.to_string(), "--endpoint-file: cannot write /nowhere/a");
    }
}
