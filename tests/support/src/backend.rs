//! The three ways to program the redirect, and tests that run with each of them.

use crate::command::{Outcome, run};
use crate::netns::Namespace;
use crate::pod::Pod;
use crate::{applet, cannot_run};

/// What programs the rules.
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

    /// The tools that its tests need.
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

    /// The variant's commands, IPv4 first.
    pub fn iptables(self) -> [&'static str; 2] {
        match self {
            Self::Nftables | Self::IptablesNft => ["iptables-nft", "ip6tables-nft"],
            Self::IptablesLegacy => ["iptables-legacy", "ip6tables-legacy"],
        }
    }

    /// Brings it into use in `sandbox`, so that msm-cni chooses it.
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

    /// The rules of `sandbox`, with the values of counters.
    pub fn counters(self, sandbox: &Namespace) -> String {
        match self {
            Self::Nftables => {
                sandbox
                    .tool("nft", &["list", "ruleset"], "")
                    .succeeded()
                    .stdout
            }
            Self::IptablesNft | Self::IptablesLegacy => {
                let mut rules = String::new();
                for tool in self.iptables() {
                    for table in ["nat", "filter"] {
                        let list = sandbox.tool(tool, &["-t", table, "-v", "-S"], "");
                        rules += &list.succeeded().stdout;
                    }
                }
                rules
            }
        }
    }

    /// Runs a test with it, unless this machine lacks the tools.
    pub fn test(self, body: fn(Self)) {
        if !cannot_run(self.tools()) {
            body(self);
        }
    }

    /// A pod with the redirect of `args`.
    pub fn redirected_pod(self, args: &[&str]) -> Pod {
        let pod = Pod::new();
        self.prepare(&pod.inside);
        self.apply(&pod, args);
        pod
    }

    /// Sets the redirect of `args`.
    #[track_caller]
    pub fn apply(self, pod: &Pod, args: &[&str]) {
        self.run(pod, args).succeeded();
    }

    /// Runs `msm-iptables` on the pod with this backend.
    pub fn run(self, pod: &Pod, args: &[&str]) -> Outcome {
        msm_iptables(pod, &[&["--backend", self.name()], args].concat())
    }
}

/// Runs `msm-iptables` on the pod.
pub fn msm_iptables(pod: &Pod, args: &[&str]) -> Outcome {
    run(applet("msm-iptables")
        .arg("--netns")
        .arg(pod.inside.path())
        .args(args))
}

/// Declares a test for every backend from each of the named functions.
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
