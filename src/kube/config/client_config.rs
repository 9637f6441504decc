//! Everything that a client needs to reach an API server, read from a kubeconfig and the files
//! that it names. No error or log quotes the content of these files.

use std::io;
use std::path::{Path, PathBuf};

use super::fields::DataOrFile;
use super::kubeconfig::{InvalidKubeconfig, Kubeconfig, MAX_SIZE, TlsVerify};
use crate::fs::read_file;
use crate::kube::server::{Host, Server};
use crate::kube::tls::{PemIdentity, TlsError};

/// In bytes. A service account token has about 1,000. It is sent in the head of each request.
const MAX_TOKEN: usize = 16 << 10;

/// How to reach an API server, and the credentials. Compared to find out whether a kubeconfig
/// has changed.
#[derive(PartialEq, Eq)]
pub struct ClientConfig {
    pub server: Server,
    /// The name that the server's certificate is checked for, if it is not the server's host.
    pub tls_server_name: Option<Host>,
    /// PEM. Without a bundle no server certificate is verified.
    pub ca_bundle: Option<Vec<u8>>,
    /// A bearer token.
    pub token: Option<String>,
    pub identity: Option<PemIdentity>,
}

/// Why a kubeconfig, or a file that it names, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("reading {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Kubeconfig(#[from] InvalidKubeconfig),
    #[error("invalid {field}")]
    Token {
        /// The kubeconfig's field, with the path of a token file.
        field: String,
        source: InvalidToken,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a token cannot be used. The token is not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// White space only.
    #[error("token is empty")]
    Empty,
    #[error("token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    #[error("token contains characters other than printable ASCII")]
    Characters,
}

impl ClientConfig {
    /// Reads the kubeconfig and the files that it names. `server` overrides the kubeconfig's.
    pub fn read(kubeconfig: &Path, server: Option<&Server>) -> Result<Self, ConfigError> {
        let config = Kubeconfig::parse(&read(kubeconfig)?)?;
        let load = |source| match source {
            DataOrFile::Data(bytes) => Ok(bytes),
            DataOrFile::File(path) => read(&resolve(kubeconfig, &path)),
        };
        Ok(Self {
            server: server.cloned().unwrap_or(config.server),
            tls_server_name: config.tls_server_name,
            ca_bundle: match config.tls_verify {
                TlsVerify::CaBundle(bundle) => Some(load(bundle)?),
                TlsVerify::Skip => None,
            },
            token: match config.token {
                Some(source) => {
                    let field = token_field(kubeconfig, &source);
                    let bytes = load(source)?;
                    let token = parse_token(&bytes)
                        .map_err(|source| ConfigError::Token { field, source })?;
                    Some(token.to_owned())
                }
                None => None,
            },
            identity: match config.client_certificate {
                Some(client) => Some(PemIdentity {
                    certificate: load(client.certificate)?,
                    key: load(client.key)?,
                }),
                None => None,
            },
        })
    }
}

/// Checks a bearer token, and trims it as client-go does: token files end with a newline.
pub fn parse_token(bytes: &[u8]) -> Result<&str, InvalidToken> {
    let token = str::from_utf8(bytes)
        .map_err(|_| InvalidToken::Characters)?
        .trim();
    if token.is_empty() {
        return Err(InvalidToken::Empty);
    }
    if token.len() > MAX_TOKEN {
        return Err(InvalidToken::TooLong);
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidToken::Characters);
    }
    Ok(token)
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    read_file(path, MAX_SIZE).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Relative paths are relative to the kubeconfig, as in client-go.
fn resolve(kubeconfig: &Path, path: &Path) -> PathBuf {
    kubeconfig.parent().unwrap_or(Path::new("")).join(path)
}

fn token_field(kubeconfig: &Path, token: &DataOrFile) -> String {
    match token {
        DataOrFile::Data(_) => "user.token".to_owned(),
        DataOrFile::File(path) => {
            format!("user.tokenFile {}", resolve(kubeconfig, path).display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_trimmed_and_fit_into_a_header() {
        let long = vec![b'a'; MAX_TOKEN + 1];
        assert_eq!(parse_token(b" sesame\n"), Ok("sesame"));
        for (bytes, error) in [
            (&b""[..], InvalidToken::Empty),
            (b" \n", InvalidToken::Empty),
            (b"a b", InvalidToken::Characters),
            (b"a\r\nHost: b", InvalidToken::Characters),
            (b"\xff", InvalidToken::Characters),
            (&long, InvalidToken::TooLong),
        ] {
            assert_eq!(parse_token(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_kubeconfig() {
        let table = [
            ("/etc/cni/net.d/kc", "ca.crt", "/etc/cni/net.d/ca.crt"),
            ("/etc/cni/net.d/kc", "/pki/ca.crt", "/pki/ca.crt"),
            ("kc", "ca.crt", "ca.crt"),
        ];
        for (kubeconfig, path, expected) in table {
            let resolved = resolve(Path::new(kubeconfig), Path::new(path));
            assert_eq!(resolved, Path::new(expected));
        }
    }

    #[test]
    fn only_regular_files_are_read() {
        for path in ["/dev/zero", "/", "/nowhere"] {
            let error = read(Path::new(path)).unwrap_err();
            assert!(matches!(error, ConfigError::Read { .. }), "{error:?}");
        }
    }
}
