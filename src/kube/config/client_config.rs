//! How the API server is reached and who we are to it: a kubeconfig together with the
//! files that it names. Reads files and nothing else; what is in them goes into no error
//! and no log.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::kube::config::kubeconfig::{
    DataOrFile, InvalidKubeconfig, Kubeconfig, MAX_SIZE, TlsVerify,
};
use crate::kube::server::{Host, Server};

/// In bytes. Service accounts' have some 1,000; a request's head must hold it.
const MAX_TOKEN: usize = 16 << 10;

/// Everything a connection needs. Two equal ones would be answered alike.
#[derive(PartialEq, Eq)]
pub struct ClientConfig {
    /// Where the API server is.
    pub server: Server,
    /// What its certificate is issued to, where that is not its host.
    pub tls_server_name: Option<Host>,
    /// PEM bundle of the authorities; `None` trusts anybody.
    pub authorities: Option<Vec<u8>>,
    /// Bearer token.
    pub token: Option<String>,
    /// PEM of a client certificate's chain and of its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why a kubeconfig, or something that it names, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Missing, or not ours to read.
    #[error("reading {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, or a pipe that would never end.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// The kubeconfig's own text.
    #[error(transparent)]
    Text(#[from] InvalidKubeconfig),
    /// The token is not what fits into a header.
    #[error("its {place} {flaw}")]
    Token {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        flaw: TokenFlaw,
    },
    /// Something else than a bundle.
    #[error("its certificate-authority holds no PEM certificate")]
    NoAuthority,
    /// A bundle without a certificate that TLS can use.
    #[error(
        "its certificate-authority holds no usable certificate: TLS can use none of the {refused} in it"
    )]
    Authorities {
        /// Certificates, and things that are none.
        refused: usize,
    },
    /// No certificate, or no key.
    #[error("its {field} holds nothing usable in PEM")]
    Pem {
        /// `client-certificate` or `client-key`.
        field: &'static str,
    },
    /// They do not belong together, or are of an unsupported kind.
    #[error("its client-certificate and client-key cannot be used together")]
    ClientCertificate {
        /// Why.
        source: rustls::Error,
    },
}

/// What is wrong with a token, which is not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFlaw {
    /// White space, at most.
    #[error("is empty")]
    Empty,
    /// Longer than `MAX_TOKEN`.
    #[error("is longer than {MAX_TOKEN} bytes, which no token is")]
    TooLong,
    /// White space inside, control characters, or beyond ASCII.
    #[error("holds characters that no token has")]
    Characters,
}

impl ClientConfig {
    /// Reads the kubeconfig and the files that it names.
    pub fn read(kubeconfig: &Path, server: Option<&Server>) -> Result<Self, ConfigError> {
        let config = Kubeconfig::parse(&read_file(kubeconfig)?)?;
        let resolve = |material| match material {
            DataOrFile::Inline(bytes) => Ok(bytes),
            DataOrFile::File(path) => read_file(&beside(kubeconfig, &path)),
        };
        Ok(Self {
            server: server.cloned().unwrap_or(config.server),
            tls_server_name: config.tls_server_name,
            authorities: match config.trust {
                TlsVerify::CaBundle(bundle) => Some(resolve(bundle)?),
                TlsVerify::Skip => None,
            },
            token: match config.token {
                Some(material) => {
                    let place = place_of_token(kubeconfig, &material);
                    let token = token(resolve(material)?);
                    Some(token.map_err(|flaw| ConfigError::Token { place, flaw })?)
                }
                None => None,
            },
            client: match config.client {
                Some(client) => Some((resolve(client.certificate)?, resolve(client.key)?)),
                None => None,
            },
        })
    }
}

/// As client-go resolves it.
fn beside(kubeconfig: &Path, path: &Path) -> PathBuf {
    kubeconfig.parent().unwrap_or(Path::new("")).join(path)
}

fn read_file(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before opening: opening a pipe waits for somebody to write.
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ConfigError::NotAFile {
            path: path.to_owned(),
        });
    }
    let limit = u64::try_from(MAX_SIZE)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    // One more than its size, so that the first read finds the end as well.
    let size = metadata.len().saturating_add(1).min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    let file = File::open(path).map_err(failed)?;
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_SIZE {
        return Err(InvalidKubeconfig::TooLarge.into());
    }
    Ok(bytes)
}

/// As somebody would look for it.
fn place_of_token(kubeconfig: &Path, material: &DataOrFile) -> String {
    match material {
        DataOrFile::Inline(_) => "user.token".to_owned(),
        DataOrFile::File(path) => format!("user.tokenFile {}", beside(kubeconfig, path).display()),
    }
}

/// Trimmed as in client-go: token files end with a newline.
fn token(bytes: Vec<u8>) -> Result<String, TokenFlaw> {
    let text = String::from_utf8(bytes).map_err(|_| TokenFlaw::Characters)?;
    match text.trim() {
        "" => Err(TokenFlaw::Empty),
        token if token.len() > MAX_TOKEN => Err(TokenFlaw::TooLong),
        token if !token.bytes().all(|byte| byte.is_ascii_graphic()) => Err(TokenFlaw::Characters),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_trimmed_and_fit_a_header() {
        let long = vec![b'a'; MAX_TOKEN + 1];
        assert_eq!(token(b" sesame\n".to_vec()).unwrap(), "sesame");
        for (bytes, flaw) in [
            (&b""[..], TokenFlaw::Empty),
            (b" \n", TokenFlaw::Empty),
            (b"a b", TokenFlaw::Characters),
            (b"a\r\nHost: b", TokenFlaw::Characters),
            (b"\xff", TokenFlaw::Characters),
            (&long, TokenFlaw::TooLong),
        ] {
            assert_eq!(token(bytes.to_vec()), Err(flaw), "{bytes:?}");
        }
    }

    #[test]
    fn named_files_lie_beside_the_kubeconfig() {
        let table = [
            ("/etc/cni/net.d/kc", "ca.crt", "/etc/cni/net.d/ca.crt"),
            ("/etc/cni/net.d/kc", "/pki/ca.crt", "/pki/ca.crt"),
            ("kc", "ca.crt", "ca.crt"),
        ];
        for (kubeconfig, path, expected) in table {
            assert_eq!(
                beside(Path::new(kubeconfig), Path::new(path)),
                Path::new(expected)
            );
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        assert!(matches!(
            read_file(Path::new("/dev/zero")),
            Err(ConfigError::NotAFile { .. })
        ));
        assert!(matches!(
            read_file(Path::new("/")),
            Err(ConfigError::NotAFile { .. })
        ));
        assert!(matches!(
            read_file(Path::new("/nowhere")),
            Err(ConfigError::Read { .. })
        ));
    }
}
