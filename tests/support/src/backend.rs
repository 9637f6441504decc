//! The three ways to write the redirect, and a test for each of them.

use crate::command::{Outcome, run};
use crate::netns::Namespace;
use crate::pod::Pod;
use crate::{applet, cannot_run};

/// Who writes the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

impl Backend {
    /// The value of `--backend`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesNft | Self::IptablesLegacy => "iptables",
        }
    }

    /// What has to be installed for testing it.
    fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Nftables => &["ip", "nft"],
            Self::IptablesNft => &["ip", "nft", "iptables-nft-restore", "ip6tables-nft-restore"],
            Self::IptablesLegacy => &[
                "ip",
                "nft",
                "iptables-legacy-restore",
                "ip6tables-legacy-restore",
            ],
        }
    }

    /// The variant's own commands, IPv4 first.
    pub fn iptables(self) -> [&'static str; 2] {
        match self {
            Self::Nftables | Self::IptablesNft => ["iptables-nft", "ip6tables-nft"],
            Self::IptablesLegacy => ["iptables-legacy", "ip6tables-legacy"],
        }
    }

    /// Makes it the one that the program finds in use.
    pub fn prepare(self, sandbox: &Namespace) {
        if self == Self::IptablesLegacy {
            for tool in self.iptables() {
                for table in ["nat", "filter"] {
                    sandbox
                        .tool(tool, &["-t", table, "-n", "-L"], "")
                        .succeeded();
                }
            }
        }
    }

    /// Runs a test on it, unless this machine cannot.
    pub fn test(self, body: fn(Self)) {
        if !cannot_run(self.tools()) {
            body(self);
        }
    }

    /// A pod that has a redirect, written with `args`.
    pub fn redirected_pod(self, args: &[&str]) -> Pod {
        let pod = Pod::new();
        self.prepare(&pod.inside);
        self.apply(&pod, args);
        pod
    }

    /// Writes the redirect of `args`.
    #[track_caller]
    pub fn apply(self, pod: &Pod, args: &[&str]) {
        self.run(pod, args).succeeded();
    }

    /// Runs the program on the pod with this backend.
    pub fn run(self, pod: &Pod, args: &[&str]) -> Outcome {
        msm_iptables(pod, &[&["--backend", self.name()], args].concat())
    }
}

/// Runs the program on a pod.
pub fn msm_iptables(pod: &Pod, args: &[&str]) -> Outcome {
    run(applet("msm-iptables")
        .arg("--netns")
        .arg(pod.inside.path())
        .args(args))
}

/// Declares each of the named functions as a test of every backend.
#[macro_export]
macro_rules! on_every_backend {
    ($($test:ident,)*) => {
        $crate::on_every_backend! { @ nftables Nftables $($test)* }
        $crate::on_every_backend! { @ iptables_nft IptablesNft $($test)* }
        $crate::on_every_backend! { @ iptables_legacy IptablesLegacy $($test)* }
    };
    (@ $module:ident $backend:ident $($test:ident)*) => {
        mod $module {
            $(#[test]
            fn $test() {
                $crate::backend::Backend::$backend.test(super::$test);
            })*
        }
    };
}
