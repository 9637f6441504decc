//! The iptables backend: finds the host's executables and uses them to read and write the
//! rules of both families. `script` generates their input and parses their output, `exec` runs
//! them.

pub mod exec;
pub mod script;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::diff::{Change, Listing};
use super::id::Variant;
use super::nft;
use super::nft::Tables;
use super::policy::Family;
use super::rules::{Redirect, RuleSet, Scope};
use exec::Call;
use script::Saved;

/// Searched in this order. `PATH` is not used: it depends on how the runtime was started.
const DIRECTORIES: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];
/// Waits up to 5 seconds for the lock, which normally no other process holds.
const RESTORE: [&str; 3] = ["--noflush", "-w", "5"];

/// Why rules cannot be read or written with iptables.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("iptables-restore not found in {}", DIRECTORIES.join(", "))]
    NotInstalled,
    #[error(transparent)]
    Exec(#[from] exec::Error),
    #[error("iptables-nft-restore, which is required to change the existing rules of msm-cni, not found in {}", DIRECTORIES.join(", "))]
    NftNotInstalled,
    #[error("reading the rules of iptables-nft")]
    Nftables { source: nft::Error },
}

/// The iptables rules of msm-cni in a network namespace.
#[derive(Debug)]
pub struct State {
    /// The chains of msm-cni, of both variants.
    pub listing: Listing,
    /// The variant with chains of msm-cni, if it is exactly one.
    pub holder: Option<Variant>,
}

/// The rules of one family.
struct FamilyRules {
    family: Family,
    set: RuleSet,
}

/// The installed executables of one variant.
#[derive(Debug, Clone)]
struct Tools {
    variant: Variant,
    directory: &'static str,
    /// `-nft`, `-legacy`, or nothing on a host with only one variant.
    infix: &'static str,
}

/// Programs exactly the rules of `redirect` in the calling thread's network namespace.
pub fn apply(redirect: &Redirect) -> Result<Change, Error> {
    let tools = Tools::choose()?;
    let rules = family_rules(redirect);
    let change = match tools.create(&rules) {
        Ok(()) if !tools.may_have_others(&rules)? => Change::Created,
        Ok(()) => match tools.update(&rules, &tools.save()?)? {
            Change::None => Change::Created,
            change => change,
        },
        // Another call would block too, and hide the cause.
        Err(error @ Error::Exec(exec::Error::Timeout { .. })) => return Err(error),
        // Either the chains exist, or nothing can be written.
        Err(error) => {
            let saved = tools.save()?;
            if saved.iter().all(Saved::is_empty) {
                return Err(error);
            }
            tools.update(&rules, &saved)?
        }
    };
    // Only one variant may have a redirect.
    for other in Tools::installed().filter(|other| other.variant != tools.variant) {
        let is_in_use = match other.variant {
            Variant::Nft => nft_chains_exist(&nft_tables()?)?,
            Variant::Legacy => legacy_tables_exist(),
        };
        if is_in_use && let Some(saved) = other.save_ours()? {
            other.replace(&[], &saved)?;
        }
    }
    Ok(change)
}

/// Reads the chains of msm-cni. `tables`: those of nftables, which iptables-nft uses.
pub fn read(tables: &Tables) -> Result<State, Error> {
    let holders = holders(tables)?;
    let mut listing = Listing::default();
    for (tools, saved) in &holders {
        listing.0.extend(list(tools.variant, saved).0);
    }
    let holder = match holders.as_slice() {
        [(tools, _)] => Some(tools.variant),
        _ => None,
    };
    Ok(State { listing, holder })
}

/// The chains of `redirect` in the variant `holder`; by default in the variant that
/// `apply` would choose.
pub fn expected(redirect: &Redirect, holder: Option<Variant>) -> Result<Listing, Error> {
    let variant = match holder {
        Some(variant) => variant,
        None => Tools::choose()?.variant,
    };
    Ok(expected_of(variant, &family_rules(redirect)))
}

/// Removes the chains of msm-cni from both variants; returns whether there were any.
/// `tables`: as in `read`.
pub fn remove(tables: &Tables) -> Result<bool, Error> {
    let holders = holders(tables)?;
    for (tools, saved) in &holders {
        tools.replace(&[], saved)?;
    }
    Ok(!holders.is_empty())
}

/// The variants that have chains of msm-cni, nft first, and these chains.
fn holders(tables: &Tables) -> Result<Vec<(Tools, Vec<Saved>)>, Error> {
    let mut holders = Vec::new();
    // In a new pod neither is in use. Then the executables are not searched, one of which may
    // have to run to report its variant.
    let nft_is_in_use = nft_chains_exist(tables)?;
    let legacy_is_in_use = legacy_tables_exist();
    if !nft_is_in_use && !legacy_is_in_use {
        return Ok(holders);
    }
    let mut nft_is_installed = false;
    for tools in Tools::installed() {
        nft_is_installed |= tools.variant == Variant::Nft;
        let is_in_use = match tools.variant {
            Variant::Nft => nft_is_in_use,
            Variant::Legacy => legacy_is_in_use,
        };
        if is_in_use && let Some(saved) = tools.save_ours()? {
            holders.push((tools, saved));
        }
    }
    // The rules may have been written where the executables exist, such as in a container.
    if nft_is_in_use && !nft_is_installed {
        return Err(Error::NftNotInstalled);
    }
    Ok(holders)
}

fn family_rules(redirect: &Redirect) -> Vec<FamilyRules> {
    let rules = |family| {
        let set = RuleSet::new(redirect, Scope::Only(family))?;
        Some(FamilyRules { family, set })
    };
    Family::ALL.into_iter().filter_map(rules).collect()
}

fn rules_of(rules: &[FamilyRules], family: Family) -> Option<&RuleSet> {
    let mut rules = rules.iter();
    rules.find(|it| it.family == family).map(|it| &it.set)
}

fn expected_of(variant: Variant, rules: &[FamilyRules]) -> Listing {
    let chains = rules
        .iter()
        .flat_map(|it| script::expected(&it.set, variant, it.family));
    Listing(chains.collect())
}

fn list(variant: Variant, saved: &[Saved]) -> Listing {
    Listing(saved.iter().flat_map(|it| it.chains(variant)).collect())
}

impl Tools {
    /// The variant in use in this network namespace, otherwise nft, otherwise legacy.
    fn choose() -> Result<Self, Error> {
        let installed: Vec<Self> = Self::installed().collect();
        let in_use = installed
            .iter()
            .find(|tools| tools.variant == Variant::Legacy && legacy_tables_exist());
        in_use
            .or(installed.first())
            .cloned()
            .ok_or(Error::NotInstalled)
    }

    /// The installed variants, nft first.
    fn installed() -> impl Iterator<Item = Self> {
        let named = [(Variant::Nft, "-nft"), (Variant::Legacy, "-legacy")]
            .into_iter()
            .filter_map(|(variant, infix)| Self::find(variant, infix));
        let mut named = named.peekable();
        let plain = if named.peek().is_none() {
            Self::find_plain()
        } else {
            None
        };
        named.chain(plain)
    }

    fn find(variant: Variant, infix: &'static str) -> Option<Self> {
        DIRECTORIES
            .into_iter()
            .map(|directory| Self {
                variant,
                directory,
                infix,
            })
            .find(|tools| tools.program(Family::Ipv4, "restore").exists())
    }

    /// A host with only one variant may not have its suffix in the names; the version has it.
    fn find_plain() -> Option<Self> {
        let mut tools = Self::find(Variant::Legacy, "")?;
        let version = Call {
            program: tools.program(Family::Ipv4, "restore"),
            args: &["--version"],
            input: String::new(),
        };
        let output = exec::run(vec![version]).ok()?.concat();
        if String::from_utf8_lossy(&output).contains("nf_tables") {
            tools.variant = Variant::Nft;
        }
        Some(tools)
    }

    fn program(&self, family: Family, verb: &str) -> PathBuf {
        let name = match family {
            Family::Ipv4 => "iptables",
            Family::Ipv6 => "ip6tables",
        };
        Path::new(self.directory).join(format!("{name}{}-{verb}", self.infix))
    }

    /// Fails if a chain exists already.
    fn create(&self, rules: &[FamilyRules]) -> Result<(), Error> {
        let script = |it: &FamilyRules| (it.family, script::create(&it.set));
        self.restore(rules.iter().map(script))
    }

    /// Changes `saved` to `rules`, unless they are equal.
    fn update(&self, rules: &[FamilyRules], saved: &[Saved]) -> Result<Change, Error> {
        let expected = expected_of(self.variant, rules);
        if expected.diff(&list(self.variant, saved)).is_none() {
            return Ok(Change::None);
        }
        self.replace(rules, saved)?;
        Ok(Change::Replaced)
    }

    fn replace(&self, rules: &[FamilyRules], saved: &[Saved]) -> Result<(), Error> {
        let script = |it: &Saved| {
            let rules = rules_of(rules, it.family);
            (it.family, script::replace(rules, it))
        };
        self.restore(saved.iter().map(script))
    }

    /// The chains of msm-cni, if there are any. Call it only if the variant is in use: the
    /// executables create the tables that they read.
    fn save_ours(&self) -> Result<Option<Vec<Saved>>, Error> {
        let saved = self.save()?;
        Ok((!saved.iter().all(Saved::is_empty)).then_some(saved))
    }

    /// Whether a family or table without `rules` may have chains of msm-cni, from an
    /// interrupted run.
    fn may_have_others(&self, rules: &[FamilyRules]) -> Result<bool, Error> {
        match self.variant {
            Variant::Legacy => Ok(legacy_tables_exist()),
            Variant::Nft => nft_chains_exist_outside(rules, &nft_tables()?),
        }
    }

    /// Runs `iptables-restore` and `ip6tables-restore` in parallel.
    fn restore(&self, scripts: impl Iterator<Item = (Family, String)>) -> Result<(), Error> {
        let calls = scripts
            .filter(|(_, script)| !script.is_empty())
            .map(|(family, input)| Call {
                program: self.program(family, "restore"),
                args: &RESTORE,
                input,
            });
        exec::run(calls.collect())?;
        Ok(())
    }

    /// Runs `iptables-save` and `ip6tables-save` in parallel.
    fn save(&self) -> Result<Vec<Saved>, Error> {
        let calls = Family::ALL.map(|family| Call {
            program: self.program(family, "save"),
            args: &[],
            input: String::new(),
        });
        let outputs = exec::run(calls.into())?;
        let saved = |(family, output): (Family, Vec<u8>)| {
            Saved::parse(family, &String::from_utf8_lossy(&output))
        };
        Ok(Family::ALL.into_iter().zip(outputs).map(saved).collect())
    }
}

fn nft_tables() -> Result<Tables, Error> {
    nft::tables().map_err(|source| Error::Nftables { source })
}

/// Whether iptables-nft has chains of msm-cni; reads them over netlink.
fn nft_chains_exist(tables: &Tables) -> Result<bool, Error> {
    nft_chains_exist_outside(&[], tables)
}

/// The same for the tables that `rules` do not use.
fn nft_chains_exist_outside(rules: &[FamilyRules], tables: &Tables) -> Result<bool, Error> {
    let uses = |family, table: &str| {
        let mut chains = rules_of(rules, family)
            .into_iter()
            .flat_map(|set| &set.chains);
        chains.any(|chain| chain.role.chain_type() == table)
    };
    let chains = Family::ALL.into_iter().flat_map(|family| {
        let chains = script::CHAINS.into_iter();
        chains.map(move |(table, chain)| (family, table, chain))
    });
    let chains = chains.filter(|(family, table, _)| !uses(*family, table));
    nft::any_chain_exists(chains, tables).map_err(|source| Error::Nftables { source })
}

/// Whether legacy iptables is in use in the calling thread's network namespace. Unlike the
/// executables, reading these files creates no table.
fn legacy_tables_exist() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|file| {
        File::open(format!("/proc/thread-self/net/{file}"))
            .and_then(|mut names| names.read(&mut [0]))
            .is_ok_and(|bytes| bytes > 0)
    })
}
