//! A kubeconfig, read or refused.

/// A kubeconfig's current context.
#[derive(Debug)]
pub struct Kubeconfig;
