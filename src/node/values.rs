//! What the texts of settings say, or why they say nothing. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use crate::kube::{self, Server};
use crate::names::{CNI_APPLET, IPTABLES_APPLET};
use crate::node::flags::Error;
use crate::node::settings::{Cleanup, HealthAddress};
use crate::text::is_network_configuration;

pub fn absolute_path(text: &str) -> Result<String, String> {
    if Path::new(text).is_absolute() {
        Ok(text.to_owned())
    } else {
        Err("it is not an absolute path".into())
    }
}

fn file_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
        return Err("it is not the name of a file".into());
    }
    if text.starts_with('.') {
        return Err("hidden files are not for the node's configuration".into());
    }
    Ok(text.to_owned())
}

pub fn conf_name(text: &str) -> Result<String, String> {
    let name = file_name(text)?;
    if is_network_configuration(&name) {
        Ok(name)
    } else {
        Err("runtimes read .conf, .conflist and .json files only".into())
    }
}

pub fn kubeconfig_name(text: &str) -> Result<String, String> {
    let name = file_name(text)?;
    if is_network_configuration(&name) {
        return Err("the runtime would take it for a network configuration".into());
    }
    Ok(name)
}

pub fn mode(text: &str) -> Result<u32, String> {
    let mode = Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|mode| *mode <= 0o777)
        .ok_or("it is not an octal mode such as 0600")?;
    if mode & 0o007 != 0 {
        return Err("others could use the token in it; the last digit has to be 0".into());
    }
    if mode & 0o400 == 0 {
        return Err("its owner could not read it".into());
    }
    Ok(mode)
}

/// What Go's flags take for one.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is neither true nor false".into()),
    }
}

/// The symlinks that are left when some are skipped.
pub fn links(skip: &str) -> Result<Vec<&'static str>, String> {
    let skipped: Vec<&str> = skip
        .split([',', ' ', '\t', '\n', '\r'])
        .filter(|name| !name.is_empty())
        .collect();
    let known = [CNI_APPLET, IPTABLES_APPLET];
    if let Some(name) = skipped.iter().find(|name| !known.contains(name)) {
        return Err(format!(
            "{name:?} is not installed anyway; what can be skipped is {}",
            known.join(" and ")
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
        _ => Err("it is none of auto, always and never".into()),
    }
}

pub fn health_address(text: &str) -> Result<HealthAddress, String> {
    let port = |text: &str| u16::from_str(text).ok().filter(|port| *port > 0);
    let everywhere = port(text.strip_prefix(':').unwrap_or(text));
    if let Some(port) = everywhere {
        return Ok(HealthAddress::Everywhere { port });
    }
    let address: Option<SocketAddr> = text.parse().ok();
    match address.filter(|address| address.port() > 0) {
        Some(address) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let port = address.port();
            Ok(HealthAddress::Everywhere { port })
        }
        Some(address) => Ok(HealthAddress::At(address)),
        None => Err("it is neither PORT, :PORT, IPV4:PORT nor [IPV6]:PORT".into()),
    }
}

pub fn api_server(host: &str, port: &str) -> Result<Server, Error> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let url = if bare.parse::<Ipv6Addr>().is_ok() {
        format!("https://[{bare}]:{port}")
    } else {
        format!("https://{bare}:{port}")
    };
    let invalid = |source| Error::ApiServer {
        host: host.to_owned(),
        port: port.to_owned(),
        source,
    };
    // Either would begin a path.
    if [host, port].iter().any(|text| text.contains('/')) {
        return Err(invalid(kube::InvalidServer::Path));
    }
    Server::parse(&url).map_err(invalid)
}
