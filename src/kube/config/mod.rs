//! How to reach the API server, and with which credentials.

pub mod client_config;
pub mod kubeconfig;
pub mod yaml;
