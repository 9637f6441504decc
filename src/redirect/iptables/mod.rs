//! The iptables backend: finds the host's tools, and reads and writes both families' rules
//! by them. What to tell them is `script`'s, how they are run is `tool`'s.

pub mod exec;
pub mod script;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::redirect::Change;
use crate::redirect::diff::Listing;
use crate::redirect::nft;
use crate::redirect::nft::Tables;
use crate::redirect::policy::Family;
use crate::redirect::rules::{Redirect, RuleSet, Scope};
use exec::Call;
use script::Saved;

/// Where a host may have them; no `PATH` is asked, the kubelet's is anybody's guess.
const DIRECTORIES: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// The lock is one that nobody else should hold.
const RESTORE: [&str; 3] = ["--noflush", "-w", "5"];

/// Why iptables holds no redirect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no iptables-restore in {}; install iptables on the node, or use nftables", DIRECTORIES.join(", "))]
    NoTool,
    #[error(transparent)]
    Tool(#[from] exec::Error),
    #[error("iptables-nft holds a redirect of ours, and there is no iptables-nft-restore in {} to change it; install iptables where this runs", DIRECTORIES.join(", "))]
    NoToolToRemove,
    #[error("asking nftables for the rules of iptables-nft")]
    Nftables { source: nft::Error },
}

/// By which of the kernel's two tables iptables works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Nft,
    Legacy,
}

/// The installed tools of one variant.
#[derive(Debug, Clone)]
pub struct Tools {
    variant: Variant,
    directory: &'static str,
    /// `-nft`, `-legacy`, or nothing where a host has one variant only.
    infix: &'static str,
}

/// Brings the calling thread's namespace to hold exactly the rules of `redirect`.
pub fn apply(redirect: &Redirect) -> Result<Change, Error> {
    let tools = Tools::choose()?;
    let sets = rule_sets(redirect);
    let scripts = sets.each_ref().map(|set| set.as_ref().map(script::create));
    let change = match tools.restore(scripts) {
        Ok(()) if !tools.may_hold_others(&sets)? => Change::Created,
        Ok(()) => match tools.settle(&sets, &tools.save()?)? {
            Change::None => Change::Created,
            change => change,
        },
        // It would only hang once more, and hide why.
        Err(error @ Error::Tool(exec::Error::TooSlow { .. })) => return Err(error),
        // Either the chains exist, or nothing can be written at all.
        Err(error) => {
            let saved = tools.save()?;
            if saved.iter().all(Saved::is_empty) {
                return Err(error);
            }
            tools.settle(&sets, &saved)?
        }
    };
    // Only one variant may hold a redirect.
    for other in Tools::installed().filter(|other| other.variant != tools.variant) {
        let is_in_use = match other.variant {
            Variant::Nft => nft_chains_exist(&nft_tables()?)?,
            Variant::Legacy => legacy_tables_exist(),
        };
        if is_in_use && let Some(saved) = other.holding()? {
            other.replace(&[None, None], &saved)?;
        }
    }
    Ok(change)
}

/// What both variants hold of ours; and which it is, if it is one. `tables` are those of
/// nftables, where one of the variants keeps its rules.
pub fn found(tables: &Tables) -> Result<(Listing, Option<Variant>), Error> {
    let holders = holders(tables)?;
    let mut found = Listing::default();
    for (tools, saved) in &holders {
        found.0.extend(listing(tools.variant, saved).0);
    }
    let holder = match holders.as_slice() {
        [(tools, _)] => Some(tools.variant),
        _ => None,
    };
    Ok((found, holder))
}

/// What should be there for `redirect`, in the variant that `holder` names, else in the
/// one that `apply` would choose.
pub fn wanted(redirect: &Redirect, holder: Option<Variant>) -> Result<Listing, Error> {
    let variant = match holder {
        Some(variant) => variant,
        None => Tools::choose()?.variant,
    };
    Ok(wanted_of(variant, &rule_sets(redirect)))
}

/// Removes everything of ours from both variants; says whether there was anything.
/// `tables`: as in `found`.
pub fn remove(tables: &Tables) -> Result<bool, Error> {
    let holders = holders(tables)?;
    for (tools, saved) in &holders {
        tools.replace(&[None, None], saved)?;
    }
    Ok(!holders.is_empty())
}

/// The tools of every variant that holds chains of ours, nft first, and what it holds.
fn holders(tables: &Tables) -> Result<Vec<(Tools, [Saved; 2])>, Error> {
    let mut holders = Vec::new();
    // Every pod on its first day: the tools, one of which may have to be run to know its
    // variant, are not even looked for.
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
        if is_in_use && let Some(saved) = tools.holding()? {
            holders.push((tools, saved));
        }
    }
    // Rules may have been written from somewhere that has the tools, such as a container.
    if nft_is_in_use && !nft_is_installed {
        return Err(Error::NoToolToRemove);
    }
    Ok(holders)
}

fn rule_sets(redirect: &Redirect) -> [Option<RuleSet>; 2] {
    FAMILIES.map(|family| RuleSet::new(redirect, Scope::Only(family)))
}

fn wanted_of(variant: Variant, sets: &[Option<RuleSet>; 2]) -> Listing {
    let listings = sets
        .iter()
        .zip(variant.tools())
        .filter_map(|(set, tool)| Some(script::wanted(set.as_ref()?, tool).0));
    Listing(listings.flatten().collect())
}

fn listing(variant: Variant, saved: &[Saved; 2]) -> Listing {
    let listings = saved
        .iter()
        .zip(variant.tools())
        .flat_map(|(saved, tool)| saved.listing(tool).0);
    Listing(listings.collect())
}

impl Variant {
    /// The commands that show its rules, IPv4 first.
    pub const fn tools(self) -> [&'static str; 2] {
        match self {
            Self::Nft => ["iptables-nft", "ip6tables-nft"],
            Self::Legacy => ["iptables-legacy", "ip6tables-legacy"],
        }
    }
}

impl Tools {
    /// The variant in use in this namespace, else nft, else legacy.
    fn choose() -> Result<Self, Error> {
        let installed: Vec<Self> = Self::installed().collect();
        let in_use = installed
            .iter()
            .find(|tools| tools.variant == Variant::Legacy && legacy_tables_exist());
        in_use.or(installed.first()).cloned().ok_or(Error::NoTool)
    }

    /// Both variants as far as they are there, nft first.
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

    /// Hosts with one variant only may name it plainly; it says itself which one it is.
    fn find_plain() -> Option<Self> {
        let mut tools = Self::find(Variant::Legacy, "")?;
        let question = Call {
            program: tools.program(Family::Ipv4, "restore"),
            args: &["--version"],
            input: String::new(),
        };
        let [version, _] = exec::run([Some(question), None]).ok()?;
        if String::from_utf8_lossy(&version).contains("nf_tables") {
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

    /// What the variant holds, if that is anything of ours. To be asked only where it is in
    /// use: the tools create the tables that they are asked for.
    fn holding(&self) -> Result<Option<[Saved; 2]>, Error> {
        let saved = self.save()?;
        Ok((!saved.iter().all(Saved::is_empty)).then_some(saved))
    }

    /// Turns what was saved into `sets`, unless it says so already.
    fn settle(&self, sets: &[Option<RuleSet>; 2], saved: &[Saved; 2]) -> Result<Change, Error> {
        let wanted = wanted_of(self.variant, sets);
        if wanted
            .first_difference(&listing(self.variant, saved))
            .is_none()
        {
            return Ok(Change::None);
        }
        self.replace(sets, saved)?;
        Ok(Change::Replaced)
    }

    fn replace(&self, sets: &[Option<RuleSet>; 2], saved: &[Saved; 2]) -> Result<(), Error> {
        let [set4, set6] = sets.each_ref().map(Option::as_ref);
        let [saved4, saved6] = saved;
        let scripts = [script::replace(set4, saved4), script::replace(set6, saved6)];
        self.restore(scripts.map(Some))
    }

    /// Whether a family or table that `sets` leave alone may hold chains of ours, left
    /// behind by something that was cut off halfway.
    fn may_hold_others(&self, sets: &[Option<RuleSet>; 2]) -> Result<bool, Error> {
        match self.variant {
            Variant::Legacy => Ok(legacy_tables_exist()),
            Variant::Nft => nft_chains_exist_outside(sets, &nft_tables()?),
        }
    }

    /// Runs `iptables-restore` and `ip6tables-restore` at the same time.
    fn restore(&self, scripts: [Option<String>; 2]) -> Result<(), Error> {
        let [ipv4, ipv6] = scripts;
        let call = |family, script: Option<String>| {
            Some(Call {
                program: self.program(family, "restore"),
                args: &RESTORE,
                input: script.filter(|script| !script.is_empty())?,
            })
        };
        exec::run([call(Family::Ipv4, ipv4), call(Family::Ipv6, ipv6)])?;
        Ok(())
    }

    /// Runs `iptables-save` and `ip6tables-save` at the same time.
    fn save(&self) -> Result<[Saved; 2], Error> {
        let calls = FAMILIES.map(|family| {
            Some(Call {
                program: self.program(family, "save"),
                args: &[],
                input: String::new(),
            })
        });
        let printed = exec::run(calls)?;
        Ok(printed.map(|text| Saved::parse(&String::from_utf8_lossy(&text))))
    }
}

fn nft_tables() -> Result<Tables, Error> {
    nft::tables().map_err(|source| Error::Nftables { source })
}

/// Whether iptables-nft holds chains of ours; needs none of its tools.
fn nft_chains_exist(tables: &Tables) -> Result<bool, Error> {
    nft_chains_exist_outside(&[None, None], tables)
}

/// The same for the tables that `sets` do not use.
fn nft_chains_exist_outside(sets: &[Option<RuleSet>; 2], tables: &Tables) -> Result<bool, Error> {
    let uses = |set: &Option<RuleSet>, table: &str| {
        let mut chains = set.iter().flat_map(|set| &set.chains);
        chains.any(|chain| chain.role.kind() == table)
    };
    let chains = FAMILIES.into_iter().zip(sets).flat_map(|(family, set)| {
        let others = script::CHAINS
            .into_iter()
            .filter(move |(table, _)| !uses(set, table));
        others.map(move |(table, chain)| (family, table, chain))
    });
    nft::any_chain_exists(chains, tables).map_err(|source| Error::Nftables { source })
}

/// Whether legacy iptables is in use in the calling thread's namespace. The file is the
/// kernel's; unlike the tools it creates no table when asked.
fn legacy_tables_exist() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|file| {
        File::open(format!("/proc/thread-self/net/{file}"))
            .and_then(|mut names| names.read(&mut [0]))
            .is_ok_and(|bytes| bytes > 0)
    })
}
