//! Reads the service account's token and CA bundle as the kubelet mounts them.

use std::io;
use std::path::Path;

use crate::fs::read_file;
use crate::kube;
use crate::node::settings::ServerVerification;

/// In bytes. Both files come from Kubernetes objects, which etcd limits to 1.5 MiB.
const MAX_FILE: u64 = 4 << 20;

/// The service account's token, checked to be a possible header value.
pub fn token(path: &Path) -> Result<String, String> {
    let bytes = read_mounted(path).map_err(|error| {
        format!(
            "service account token {} cannot be read: {error}",
            path.display()
        )
    })?;
    let token = kube::parse_token(&bytes).map_err(|error| {
        format!(
            "service account token {} cannot be used: {error}",
            path.display()
        )
    })?;
    Ok(token.to_owned())
}

/// The certificates to trust, in PEM; `None` if the server is not verified.
pub fn ca_bundle(verification: &ServerVerification) -> Result<Option<Vec<u8>>, String> {
    let ServerVerification::CaFile(path) = verification else {
        return Ok(None);
    };
    let bytes = read_mounted(path)
        .map_err(|error| format!("CA bundle {} cannot be read: {error}", path.display()))?;
    match kube::check_ca_bundle(&bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) => Err(format!(
            "CA bundle {} cannot be used: {error}",
            path.display()
        )),
    }
}

/// On an update the kubelet replaces the directory that the path's symlink leads to, and
/// removes the old one: an open that fails in between succeeds the second time.
fn read_mounted(path: &Path) -> io::Result<Vec<u8>> {
    match read_file(path, MAX_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => read_file(path, MAX_FILE),
        read => read,
    }
}
