//! TLS settings of the client: CA bundle, client certificate, cipher suites. Everything is
//! checked with rustls first, because ureq silently drops certificates that it cannot parse
//! and panics if the key does not match the certificate.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// A client certificate's chain and its key.
#[derive(PartialEq, Eq)]
pub struct PemIdentity {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// Why a CA bundle or a client certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("CA bundle contains no PEM certificate")]
    EmptyCaBundle,
    #[error("CA bundle contains no usable certificate ({rejected} rejected)")]
    UnusableCaBundle { rejected: usize },
    #[error("client-certificate contains no usable PEM certificate")]
    ClientCertificate,
    #[error("client-key contains no usable PEM key")]
    ClientKey,
    /// The key is of another certificate, or its type is not supported.
    #[error("client-certificate and client-key cannot be used together")]
    KeyMismatch { source: rustls::Error },
}

/// Returns an error unless TLS can use at least one certificate of a PEM bundle.
pub fn check_ca_bundle(pem: &[u8]) -> Result<(), TlsError> {
    CaBundle::parse(pem).map(drop)
}

/// The settings for a connection. Without a CA bundle no server certificate is verified.
pub fn tls_config(
    ca_bundle: Option<&[u8]>,
    identity: Option<&PemIdentity>,
) -> Result<TlsConfig, TlsError> {
    let provider = Arc::new(crypto_provider());
    let client_cert = identity
        .map(|identity| client_cert(identity, &provider))
        .transpose()?;
    let builder = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .client_cert(client_cert);
    let Some(pem) = ca_bundle else {
        return Ok(builder.disable_verification(true).build());
    };
    let CaBundle { usable, rejected } = CaBundle::parse(pem)?;
    if rejected > 0 {
        log::warn!("ignoring {rejected} unusable certificates of the kubeconfig's CA bundle");
    }
    Ok(builder
        .root_certs(RootCerts::new_with_certs(&usable))
        .build())
}

/// Prefers `TLS_AES_128_GCM_SHA256`: SHA-256 costs a third of SHA-384, which a handshake
/// calls dozens of times, and Go servers pick this suite anyway.
fn crypto_provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let preferred = CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != preferred);
    provider
}

struct CaBundle {
    usable: Vec<Certificate<'static>>,
    /// The number of certificates that cannot be used.
    rejected: usize,
}

impl CaBundle {
    /// An unusable certificate does not prevent the use of the others.
    fn parse(pem: &[u8]) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        let mut usable = Vec::new();
        let mut rejected = 0;
        for item in CertificateDer::pem_slice_iter(pem) {
            match item {
                Ok(der) if store.add(der.clone()).is_ok() => {
                    usable.push(Certificate::from_der(&der).to_owned());
                }
                _ => rejected += 1,
            }
        }
        match (usable.is_empty(), rejected) {
            (true, 0) => Err(TlsError::EmptyCaBundle),
            (true, _) => Err(TlsError::UnusableCaBundle { rejected }),
            (false, _) => Ok(Self { usable, rejected }),
        }
    }
}

fn client_cert(identity: &PemIdentity, provider: &CryptoProvider) -> Result<ClientCert, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&identity.certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::ClientCertificate)?;
    if chain.is_empty() {
        return Err(TlsError::ClientCertificate);
    }
    let key_der = PrivateKeyDer::from_pem_slice(&identity.key).map_err(|_| TlsError::ClientKey)?;
    CertifiedKey::from_der(chain.clone(), key_der, provider)
        .map_err(|source| TlsError::KeyMismatch { source })?;
    let certificates: Vec<_> = chain
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    let key = PrivateKey::from_pem(&identity.key).map_err(|_| TlsError::ClientKey)?;
    Ok(ClientCert::new_with_certs(&certificates, key))
}
