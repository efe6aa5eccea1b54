//! TLS of the gRPC port: the server's certificate, and those of clients if they must have one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or does not hold what it should in the PEM form.
    #[error("'{path}' holds no {what}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What the reader says.
        error: String,
    },
    /// A key that is not the certificate's, or an algorithm that is not known.
    #[error("the certificate and its key cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// Certificates of clients cannot be checked with what the file holds.
    #[error("certificates of clients cannot be checked: {0}")]
    Roots(String),
}

/// What a connection needs to be encrypted. TLS 1.2 and 1.3.
#[derive(Clone)]
pub struct Tls(pub(crate) Arc<ServerConfig>);

impl fmt::Debug for Tls {
    // Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files, all in the PEM form. With `roots`, a client must have a certificate that leads to one of them.
    ///
    /// # Errors
    /// A file that does not hold what it should, or a key that is not the certificate's.
    pub fn read(certificate: &Path, key: &Path, roots: Option<&Path>) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
            path: key.to_owned(),
            what: "private key",
            error: error.to_string(),
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match roots {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut store = RootCertStore::empty();
                for root in certificates(path)? {
                    store.add(root)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
                builder
                    .with_client_cert_verifier(verifier.map_err(|error| TlsError::Roots(error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, secret)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = |error: String| TlsError::File { path: path.to_owned(), what: "certificate", error };
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|error| none(error.to_string()))?;
    if all.is_empty() { Err(none("it is empty of them".to_owned())) } else { Ok(all) }
}
