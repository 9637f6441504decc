//! Runs with a cold page cache: the pages of a copy of the executable are dropped by
//! `posix_fadvise` before each run, which needs no privilege. Major page faults prove that the
//! copy was read from disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use msm_testkit::netns::Namespace;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::cases::{Case, FLOOR, STATIC_TRUE, Work};
use crate::cluster::{Call, Cluster};
use crate::launch::Launch;
use crate::sandbox::Sandbox;
use crate::table::heading;
use crate::targets::Target;
use crate::timing::{measure, print};

/// Prints this part of the table.
pub fn report(cluster: &Cluster, targets: &[Target], rounds: usize) -> Result<(), String> {
    heading(&format!(
        "cold page cache (executable dropped by posix_fadvise), {rounds} rounds"
    ));
    let ours = targets.first().ok_or("no executable")?;
    let floor = copy(cluster, &cluster.static_true, "cold-true")?;
    let mut cases = vec![cold(
        STATIC_TRUE,
        FLOOR,
        Sandbox::None,
        &floor,
        |command, _| Launch::new(command),
    )];
    for (number, target) in targets.iter().enumerate() {
        // A directory for each: the file name must be the applet's.
        let folder = format!("cold-{number}");
        fs::create_dir(cluster.path(&folder))
            .map_err(|error| format!("create {folder}: {error}"))?;
        let executable = copy(cluster, &target.executable, &format!("{folder}/msm-cni"))?;
        for (what, sandbox, verb) in [
            ("VERSION", Sandbox::None, "VERSION"),
            ("ADD, nftables, ECDSA, 8 kB pod", Sandbox::Empty, "ADD"),
        ] {
            let call = Call { verb, ..Call::ADD };
            let launch =
                move |command, netns: Option<&Namespace>| cluster.call_by(command, call, netns);
            cases.push(cold(what, &target.label, sandbox, &executable, launch));
        }
    }
    let mut all = measure(cluster, ours, &cases, rounds)?;
    for series in &mut all {
        let remark = if series.major_faults == 0 {
            "not possible: the file system is in memory".to_owned()
        } else {
            let each = series.major_faults / u64::try_from(rounds).map_err(|it| it.to_string())?;
            format!("{each} major page faults")
        };
        series.remark.get_or_insert(remark);
    }
    print(&cases, &all);
    Ok(())
}

fn cold<'a>(
    what: &str,
    target: &'a str,
    sandbox: Sandbox<'a>,
    executable: &Path,
    launch: impl Fn(Command, Option<&Namespace>) -> Launch + 'a,
) -> Case<'a> {
    let (started, dropped) = (executable.to_owned(), executable.to_owned());
    let launches = move |netns: Option<&Namespace>| {
        let mut command = Command::new(&started);
        command.env_clear();
        vec![launch(command, netns)]
    };
    let mut case = Case::new(what, target, sandbox, Work::Processes(Box::new(launches)));
    case.before = Some(Box::new(move || drop_pages(&dropped)));
    case
}

/// A copy that no other process runs, synced because dirty pages cannot be dropped.
fn copy(cluster: &Cluster, executable: &Path, name: &str) -> Result<PathBuf, String> {
    let path = cluster.path(name);
    fs::copy(executable, &path)
        .and_then(|_| File::open(&path)?.sync_all())
        .map_err(|error| {
            format!(
                "copy {} to {}: {error}",
                executable.display(),
                path.display()
            )
        })?;
    Ok(path)
}

fn drop_pages(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .map_err(|error| format!("drop the pages of {}: {error}", path.display()))
}
