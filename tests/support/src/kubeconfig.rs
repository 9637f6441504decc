//! Kubeconfigs for the plugin.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::certificates::Identity;

/// The credentials in a kubeconfig.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    Token(&'a str),
    TokenFile(&'a str),
    Client(&'a Identity),
}

/// The content of a kubeconfig.
pub struct Kubeconfig<'a> {
    pub server: &'a str,
    /// PEM. Without one the server's certificate is not verified.
    pub ca_pem: Option<&'a str>,
    pub tls_server_name: Option<&'a str>,
    pub credentials: Credentials<'a>,
}

impl Kubeconfig<'_> {
    /// YAML in the form that the earlier Go installer writes.
    pub fn yaml(&self) -> String {
        let base64 = |pem: &str| STANDARD.encode(pem);
        let trust = match self.ca_pem {
            Some(pem) => format!("certificate-authority-data: \"{}\"", base64(pem)),
            None => "insecure-skip-tls-verify: true".to_owned(),
        };
        let name = match self.tls_server_name {
            Some(name) => format!("\n    tls-server-name: {name}"),
            None => String::new(),
        };
        let user = match self.credentials {
            Credentials::Token(token) => format!("token: \"{token}\""),
            Credentials::TokenFile(path) => format!("tokenFile: {path}"),
            Credentials::Client(identity) => format!(
                "client-certificate-data: {}\n    client-key-data: {}",
                base64(&identity.certificate_pem),
                base64(&identity.key_pem),
            ),
        };
        let server = self.server;
        format!(
            "# Kubeconfig file for MSM CNI plugin.\napiVersion: v1\nkind: Config\n\
             clusters:\n- name: local\n  cluster:\n    server: {server}\n    {trust}{name}\n\
             users:\n- name: msm-cni\n  user:\n    {user}\n\
             contexts:\n- name: msm-cni-context\n  context:\n    cluster: local\n    user: msm-cni\n\
             current-context: msm-cni-context\n"
        )
    }

    /// Writes atomically, because the plugin may be reading the file.
    pub fn write(&self, path: &Path) {
        let temporary = path.with_extension("new");
        fs::write(&temporary, self.yaml()).unwrap();
        fs::rename(&temporary, path).unwrap();
    }
}
