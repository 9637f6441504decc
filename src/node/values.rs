//! Parses the values of settings. An error is the reason that a message gives after the name
//! and value of the setting. Pure.

use std::net::Ipv6Addr;
use std::path::Path;

use super::netdir::conflist::is_network_configuration;
use crate::kube::{InvalidServer, Server};
use crate::names::{CNI_APPLET, IPTABLES_APPLET};

/// Where the plugin's configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Into the node's network configuration, after the other plugins.
    Chained,
    /// Into a separate file.
    StandAlone,
}

/// What happens to existing executables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    IfDifferent,
    Never,
}

/// When the installation is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// At exit, if the `DaemonSet` is gone.
    Auto,
    /// At every exit.
    Always,
    Never,
}

/// What the removal of the installation does to the executable and its symlinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryCleanup {
    /// CRI-O and podman call the plugin again when they delete a sandbox from before, with the
    /// configuration that they cached at its ADD.
    Keep,
    Remove,
}

pub fn absolute_path(text: &str) -> Result<String, String> {
    if Path::new(text).is_absolute() {
        Ok(text.to_owned())
    } else {
        Err("expected an absolute path".into())
    }
}

fn file_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
        return Err("expected a file name".into());
    }
    if text.starts_with('.') {
        return Err("hidden files are not supported".into());
    }
    Ok(text.to_owned())
}

pub fn conf_name(text: &str) -> Result<String, String> {
    let name = file_name(text)?;
    if is_network_configuration(&name) {
        Ok(name)
    } else {
        Err("container runtimes only load .conf, .conflist and .json files".into())
    }
}

pub fn kubeconfig_name(text: &str) -> Result<String, String> {
    let name = file_name(text)?;
    if is_network_configuration(&name) {
        return Err("container runtimes would load it as a network configuration".into());
    }
    Ok(name)
}

pub fn mode(text: &str) -> Result<u32, String> {
    let mode = Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|mode| *mode <= 0o777)
        .ok_or("expected an octal mode such as 0600")?;
    if mode & 0o007 != 0 {
        return Err("the last digit must be 0, so that other users cannot read the token".into());
    }
    if mode & 0o400 == 0 {
        return Err("the owner must be able to read the file".into());
    }
    Ok(mode)
}

/// The values that Go's flag package accepts.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

pub fn placement(text: &str) -> Result<Placement, String> {
    Ok(if boolean(text)? {
        Placement::Chained
    } else {
        Placement::StandAlone
    })
}

pub fn replacement(text: &str) -> Result<Replacement, String> {
    Ok(if boolean(text)? {
        Replacement::IfDifferent
    } else {
        Replacement::Never
    })
}

pub fn binary_cleanup(text: &str) -> Result<BinaryCleanup, String> {
    Ok(if boolean(text)? {
        BinaryCleanup::Remove
    } else {
        BinaryCleanup::Keep
    })
}

/// The symlinks to create if those in `skip` are skipped.
pub fn links(skip: &str) -> Result<Vec<&'static str>, String> {
    let skipped: Vec<&str> = skip
        .split([',', ' ', '\t', '\n', '\r'])
        .filter(|name| !name.is_empty())
        .collect();
    let known = [CNI_APPLET, IPTABLES_APPLET];
    if let Some(name) = skipped.iter().find(|name| !known.contains(name)) {
        return Err(format!(
            "unknown executable {name:?}; expected {}",
            known.join(" or ")
        ));
    }
    Ok(known
        .into_iter()
        .filter(|name| !skipped.contains(name))
        .collect())
}

pub fn cleanup(text: &str) -> Result<Cleanup, String> {
    match text {
        "auto" => Ok(Cleanup::Auto),
        "always" => Ok(Cleanup::Always),
        "never" => Ok(Cleanup::Never),
        _ => Err("expected auto, always or never".into()),
    }
}

/// Accepts IPv6 addresses without brackets: that is how the kubelet sets them.
pub fn api_server(host: &str, port: &str) -> Result<Server, InvalidServer> {
    // Either would begin a path.
    if [host, port].iter().any(|text| text.contains('/')) {
        return Err(InvalidServer::Path);
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if bare.parse::<Ipv6Addr>().is_ok() {
        Server::parse(&format!("https://[{bare}]:{port}"))
    } else {
        Server::parse(&format!("https://{bare}:{port}"))
    }
}
