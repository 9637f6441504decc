//! An HTTPS client of one API server: GET requests without proxy and without redirects, with a
//! time limit on every wait. Classifies errors; retries are up to the caller.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use ureq::config::Config;
use ureq::http::{HeaderMap, Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, RustlsConnector, TcpConnector};
use ureq::{Agent, Body};

use super::config::client_config::ClientConfig;
use super::error::RequestError;
use super::server::{Host, Server};
use super::tls::{TlsError, tls_config};

/// For TCP and TLS together. TCP retransmits a lost SYN after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the head of the response, and again for its body.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// In bytes: twice a TLS record. ureq's default buffers are large enough to be mapped and
/// unmapped with a system call each, and are zeroed before use.
const RESPONSE_BUFFER: usize = 32 << 10;
/// In bytes: a request without base URL, host name and token.
const REQUEST_BUFFER: usize = 2 << 10;
/// In bytes. An object in etcd has at most 1.5 MiB, and is somewhat larger as JSON.
const MAX_BODY: u64 = 4 << 20;
/// In bytes, for the Status object of an error response.
const MAX_ERROR_BODY: u64 = 64 << 10;
/// In characters.
const MAX_STATUS_MESSAGE: usize = 400;

/// Sends requests to one API server. The connection is kept for the next request.
pub struct Client {
    agent: Agent,
    server: Server,
    /// The start of every URL: the server, under the name that its certificate is checked for.
    base_url: String,
    /// The header `Host`, if it differs from the host of `base_url`.
    host: Option<String>,
    /// The header `Authorization`.
    authorization: Option<String>,
}

impl Client {
    /// Prepares TLS. Sends nothing.
    pub fn new(config: &ClientConfig) -> Result<Self, TlsError> {
        let server = config.server.clone();
        let renamed = config.tls_server_name.as_ref().map(|name| Server {
            host: name.clone(),
            ..server.clone()
        });
        let base_url = renamed.as_ref().unwrap_or(&server).to_string();
        let host = renamed.map(|_| server.authority());
        let authorization = config.token.as_ref().map(|token| format!("Bearer {token}"));
        let variable_parts = [Some(&base_url), host.as_ref(), authorization.as_ref()];
        let variable_length: usize = variable_parts.into_iter().flatten().map(String::len).sum();
        let tls = tls_config(config.ca_bundle.as_deref(), config.identity.as_ref())?;
        let agent_config = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .https_only(true)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("msm-cni/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .input_buffer_size(RESPONSE_BUFFER)
            .max_response_header_size(RESPONSE_BUFFER / 2)
            .output_buffer_size(REQUEST_BUFFER + variable_length)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .timeout_recv_body(Some(RESPONSE_TIMEOUT))
            .build();
        let connector = TcpConnector::default().chain(RustlsConnector::default());
        Ok(Self {
            agent: Agent::with_parts(agent_config, connector, ServerResolver::new(&server)),
            server,
            base_url,
            host,
            authorization,
        })
    }

    /// The URL of `path` for messages: with the server's own host, not with the name that its
    /// certificate is checked for.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    /// Sends a GET request and returns the body of a 200. Blocks for `timeout` at most.
    pub fn get(&self, path: &str, timeout: Duration) -> Result<Vec<u8>, RequestError> {
        let mut request = self.agent.get(format!("{}{path}", self.base_url));
        if let Some(host) = &self.host {
            request = request.header(header::HOST, host);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        let mut response = request.call()?;
        match response.status().as_u16() {
            200 => read_body(response.body_mut(), MAX_BODY),
            code => Err(RequestError::Status {
                code,
                retry_after: retry_after(response.headers()),
                message: self.status_message(response.body_mut()),
            }),
        }
    }

    /// The `message` of the Status object in an error response. The token is removed, in case
    /// the server repeats it: the message is logged.
    fn status_message(&self, body: &mut Body) -> Option<String> {
        #[derive(Deserialize)]
        struct Status {
            message: String,
        }
        let bytes = read_body(body, MAX_ERROR_BODY).ok()?;
        let Status { message } = serde_json::from_slice(&bytes).ok()?;
        let token = self
            .authorization
            .as_deref()
            .and_then(|header| header.strip_prefix("Bearer "));
        let message = match token {
            Some(token) => message.replace(token, "…"),
            None => message,
        };
        let printable = message.chars().filter(|c| !c.is_control());
        Some(printable.take(MAX_STATUS_MESSAGE).collect())
    }
}

fn read_body(body: &mut Body, limit: u64) -> Result<Vec<u8>, RequestError> {
    Ok(body.with_config().limit(limit).read_to_vec()?)
}

/// In seconds. The other form of the header, a date, is not used by API servers.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Resolves every host name to the server's own address. An IP address is returned directly,
/// because ureq's resolver starts a thread even for these.
#[derive(Debug)]
enum ServerResolver {
    Address(SocketAddr),
    Name(Option<Uri>),
}

impl ServerResolver {
    fn new(server: &Server) -> Self {
        match server.host {
            // ::ffff:10.0.0.1 as 10.0.0.1, which works on nodes without IPv6.
            Host::Address(address) => {
                Self::Address(SocketAddr::new(address.to_canonical(), server.port))
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
