//! Configuration of the client: parses kubeconfigs and reads the files that they name.

pub mod client_config;
pub mod fields;
pub mod kubeconfig;
pub mod yaml;
