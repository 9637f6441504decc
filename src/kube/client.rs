//! One connection to the API server and one GET over it: TLS against the kubeconfig's
//! authority alone, no proxy, no redirect, every wait bounded. What a failed attempt
//! means is named here; whether to try again is not decided here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CipherSuite, RootCertStore};
use serde::Deserialize;
use ureq::config::Config;
use ureq::http::{HeaderMap, Uri, header};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, RustlsConnector, TcpConnector};
use ureq::{Agent, Body};

use crate::kube::config::client_config::{ClientConfig, ConfigError};
use crate::kube::error::Failure;
use crate::kube::server::{Host, Server};

/// TCP and TLS together; a packet that is dropped comes again after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the answer's head, and once more for its body.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Twice a TLS record. ureq's own buffers are so large that each costs a system call to get
/// and one to give back, and a buffer is cleared before it is used.
const ANSWER_BUFFER: usize = 32 << 10;
/// A request but for what its URL begins with, and its token.
const REQUEST_BUFFER: usize = 2 << 10;
/// An object in etcd has at most 1.5 MiB; as JSON it is somewhat larger.
const MAX_BODY: u64 = 4 << 20;
/// Of a Status object that comes with an error.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// A way to the API server. The connection is kept for the next request.
pub struct Client {
    agent: Agent,
    /// What requests go to: the server, under the name of its certificate.
    base: String,
    /// The server's own name, where the base has another.
    host: Option<String>,
    authorization: Option<String>,
    server: Server,
}

impl Client {
    /// Prepares TLS. Nothing is sent yet.
    pub fn new(access: &ClientConfig) -> Result<Self, ConfigError> {
        let server = access.server.clone();
        let named = access.tls_server_name.as_ref().map(|name| Server {
            host: name.clone(),
            ..server.clone()
        });
        let base = named.as_ref().unwrap_or(&server).to_string();
        let host = named.map(|_| server.authority());
        let authorization = access.token.as_ref().map(|token| format!("Bearer {token}"));
        let of_access = [Some(&base), host.as_ref(), authorization.as_ref()];
        let request_buffer = of_access
            .into_iter()
            .flatten()
            .fold(REQUEST_BUFFER, |size, text| size + text.len());
        let config = Agent::config_builder()
            .tls_config(tls(access)?)
            .proxy(None)
            .https_only(true)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("msm-cni/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .input_buffer_size(ANSWER_BUFFER)
            .max_response_header_size(ANSWER_BUFFER / 2)
            .output_buffer_size(request_buffer)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(Some(ANSWER_TIMEOUT))
            .build();
        let connector = TcpConnector::default().chain(RustlsConnector::default());
        Ok(Self {
            agent: Agent::with_parts(config, connector, ServerResolver::new(&server)),
            base,
            host,
            authorization,
            server,
        })
    }

    /// What a request for `path` asks, as a person would write it.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    /// GETs `path` in `budget` at most; the body of a 200 comes back.
    pub fn get(&self, path: &str, budget: Duration) -> Result<Vec<u8>, Failure> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(host) = &self.host {
            request = request.header(header::HOST, host);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.config().timeout_global(Some(budget)).build();
        let mut response = request.call().map_err(failure)?;
        match response.status().as_u16() {
            200 => read(response.body_mut(), MAX_BODY),
            code => Err(Failure::Status {
                code,
                retry_after: retry_after(response.headers()),
                message: self.message(response.body_mut()),
            }),
        }
    }

    /// The `message` of the Status object that comes with an error. A server that repeats
    /// our token in it does not get it into a log.
    fn message(&self, body: &mut Body) -> Option<String> {
        #[derive(Deserialize)]
        struct Status {
            message: String,
        }
        let bytes = read(body, MAX_ERROR_BODY).ok()?;
        let Status { message } = serde_json::from_slice(&bytes).ok()?;
        let token = self
            .authorization
            .as_deref()
            .and_then(|it| it.strip_prefix("Bearer "));
        let message = match token {
            Some(token) => message.replace(token, "…"),
            None => message,
        };
        let printable = message.chars().filter(|c| !c.is_control());
        Some(printable.take(400).collect())
    }
}

fn read(body: &mut Body, limit: u64) -> Result<Vec<u8>, Failure> {
    body.with_config()
        .limit(limit)
        .read_to_vec()
        .map_err(failure)
}

/// Seconds; a date, which API servers do not send, is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse();
    seconds.ok().map(Duration::from_secs)
}

fn tls(access: &ClientConfig) -> Result<TlsConfig, ConfigError> {
    let provider = Arc::new(provider());
    let client = match &access.client {
        Some((certificate, key)) => Some(client_cert(certificate, key, &provider)?),
        None => None,
    };
    let builder = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .client_cert(client);
    Ok(match &access.authorities {
        Some(bundle) => {
            let (authorities, refused) = authorities(bundle)?;
            if refused > 0 {
                log::warn!("{refused} certificates of the kubeconfig's authority cannot be used");
            }
            builder.root_certs(RootCerts::new_with_certs(&authorities))
        }
        None => builder.disable_verification(true),
    }
    .build())
}

/// ring's, with the suite first that Go's servers choose as well, whoever is asked: its hash,
/// of which a handshake takes dozens, is a third of the work of the one that would be first.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let quick = CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != quick);
    provider
}

/// Whether a PEM bundle holds an authority that TLS can use.
pub fn check_ca_bundle(bundle: &[u8]) -> Result<(), ConfigError> {
    authorities(bundle).map(drop)
}

/// The certificates of a bundle, and how many of them cannot be used. ureq drops a
/// certificate that does not parse without a word: they are tried here first. One that TLS
/// cannot use does not spoil the others of its bundle.
fn authorities(bundle: &[u8]) -> Result<(Vec<Certificate<'static>>, usize), ConfigError> {
    let mut store = RootCertStore::empty();
    let mut usable = Vec::new();
    let mut refused = 0;
    for item in CertificateDer::pem_slice_iter(bundle) {
        match item {
            Ok(der) if store.add(der.clone()).is_ok() => {
                usable.push(Certificate::from_der(&der).to_owned());
            }
            _ => refused += 1,
        }
    }
    match (usable.is_empty(), refused) {
        (true, 0) => Err(ConfigError::NoAuthority),
        (true, _) => Err(ConfigError::Authorities { refused }),
        (false, _) => Ok((usable, refused)),
    }
}

/// ureq panics when the key does not match: rustls is asked first.
fn client_cert(
    certificate: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<ClientCert, ConfigError> {
    let unusable = |field| move |_| ConfigError::Pem { field };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(unusable("client-certificate"))?;
    if chain.is_empty() {
        return Err(ConfigError::Pem {
            field: "client-certificate",
        });
    }
    let key_der = PrivateKeyDer::from_pem_slice(key).map_err(unusable("client-key"))?;
    CertifiedKey::from_der(chain.clone(), key_der, provider)
        .map_err(|source| ConfigError::ClientCertificate { source })?;
    let certificates: Vec<_> = chain
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    let key = PrivateKey::from_pem(key).map_err(|_| ConfigError::Pem {
        field: "client-key",
    })?;
    Ok(ClientCert::new_with_certs(&certificates, key))
}

fn failure(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::Timeout { source: error },
        ureq::Error::Rustls(error) => tls_failure(error),
        ureq::Error::Io(error) => io_failure(error),
        ureq::Error::BodyExceedsLimit(limit) => Failure::TooLarge { limit },
        ureq::Error::Http(_) | ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            Failure::NotHttp { source: error }
        }
        _ => Failure::Transport { source: error },
    }
}

/// rustls' reasons come wrapped into an I/O error.
fn io_failure(error: io::Error) -> Failure {
    match error.downcast::<rustls::Error>() {
        Ok(error) => tls_failure(error),
        Err(error) => Failure::Transport {
            source: ureq::Error::Io(error),
        },
    }
}

fn tls_failure(error: rustls::Error) -> Failure {
    use AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Failure::Certificate { source: error }
        }
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
            // The proof that the key is ours did not convince.
            | Alert::DecryptError,
        ) => Failure::ClientCertificate { source: error },
        // What a server says that is just falling over, or coming up.
        rustls::Error::AlertReceived(Alert::InternalError | Alert::CloseNotify) => {
            Failure::Transport {
                source: ureq::Error::Rustls(error),
            }
        }
        _ => Failure::NotTls { source: error },
    }
}

/// Answers an address at once (ureq's own resolver starts a thread for it), and for the
/// certificate's name with the server's real address.
#[derive(Debug)]
enum ServerResolver {
    Address(SocketAddr),
    Name(Option<Uri>),
}

impl ServerResolver {
    fn new(server: &Server) -> Self {
        match server.host {
            Host::Address(address) => {
                Self::Address(SocketAddr::new(unmapped(address), server.port))
            }
            Host::Name(_) => Self::Name(server.to_string().parse().ok()),
        }
    }
}

impl Resolver for ServerResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        match self {
            Self::Address(address) => {
                let mut addresses = self.empty();
                addresses.push(*address);
                Ok(addresses)
            }
            Self::Name(name) => {
                let uri = name.as_ref().unwrap_or(uri);
                DefaultResolver::default().resolve(uri, config, timeout)
            }
        }
    }
}

/// `::ffff:10.0.0.1` works without IPv6 on the node.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
