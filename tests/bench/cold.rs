//! Runs with nothing of the executable in memory: a copy of it on a disk, its pages dropped
//! before each run by `posix_fadvise`, which an ordinary user may do as well. Page faults that
//! waited for the disk prove that it was cold.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use msm_testkit::netns::Namespace;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::contenders::Contender;
use crate::launch::Launch;
use crate::sandbox::Sandbox;
use crate::site::{Call, Site};
use crate::subjects::{FLOOR, STATIC_TRUE, Subject, Work};
use crate::table::heading;
use crate::timing::{measure, print};

/// Prints the part.
pub fn report(site: &Site, contenders: &[Contender], rounds: usize) -> Result<(), String> {
    heading(&format!(
        "cold page cache (executable dropped by posix_fadvise), {rounds} rounds"
    ));
    let ours = contenders.first().ok_or("nobody is measured")?;
    let floor = copy(site, &site.static_true, "cold-true")?;
    let mut subjects = vec![cold(
        STATIC_TRUE,
        FLOOR,
        Sandbox::None,
        &floor,
        |command, _| Launch::new(command),
    )];
    for (number, who) in contenders.iter().enumerate() {
        // A folder each: the name has to be the applet's.
        let folder = format!("cold-{number}");
        fs::create_dir(site.path(&folder)).map_err(|error| format!("create {folder}: {error}"))?;
        let executable = copy(site, &who.executable, &format!("{folder}/msm-cni"))?;
        for (what, sandbox, verb) in [
            ("VERSION", Sandbox::None, "VERSION"),
            ("ADD, nftables, ECDSA, 8 kB pod", Sandbox::Empty, "ADD"),
        ] {
            let call = Call { verb, ..Call::ADD };
            let launch =
                move |command, netns: Option<&Namespace>| site.call_by(command, call, netns);
            subjects.push(cold(what, &who.label, sandbox, &executable, launch));
        }
    }
    let mut all = measure(site, ours, &subjects, rounds)?;
    for series in &mut all {
        let said = if series.major_faults == 0 {
            "not possible here: the file system keeps it in memory".to_owned()
        } else {
            let each = series.major_faults / u64::try_from(rounds).map_err(|it| it.to_string())?;
            format!("{each} page faults waited for the disk")
        };
        series.remark.get_or_insert(said);
    }
    print(&subjects, &all);
    Ok(())
}

fn cold<'a>(
    what: &str,
    who: &'a str,
    sandbox: Sandbox<'a>,
    executable: &Path,
    launch: impl Fn(Command, Option<&Namespace>) -> Launch + 'a,
) -> Subject<'a> {
    let (started, dropped) = (executable.to_owned(), executable.to_owned());
    let launches = move |netns: Option<&Namespace>| {
        let mut command = Command::new(&started);
        command.env_clear();
        vec![launch(command, netns)]
    };
    let mut subject = Subject::new(what, who, sandbox, Work::Processes(Box::new(launches)));
    subject.before = Some(Box::new(move || drop_pages(&dropped)));
    subject
}

/// Of its own, so that nobody else runs it, and written: dirty pages cannot be dropped.
fn copy(site: &Site, executable: &Path, name: &str) -> Result<PathBuf, String> {
    let path = site.path(name);
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
