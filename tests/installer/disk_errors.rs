//! Disk errors: every system call that changes the disk fails once, and some of them always.
//! The installer reports the failed operation and retries; no file is half-written, and the
//! final state is the same as without the error.

use msm_testkit::cannot_run;
use nix::sys::signal::Signal;

use crate::kill::{CONVERSION, FRESH, REPLACEMENT, Reference, Scenario, Then, UNINSTALL, for_each};
use crate::strace::{Call, Traced};
use crate::tree::Tree;

/// The possible errors of a call, and the operation that the installer reports.
fn failures_of(call: &Call) -> (&'static [&'static str], &'static str) {
    match call.name.as_str() {
        "open" | "openat" => (
            &["EACCES", "ENOSPC", "EROFS"],
            "creating a temporary file for",
        ),
        "write" | "sendfile" | "copy_file_range" => (&["ENOSPC", "EIO"], "writing"),
        "fchmod" => (&["EPERM"], "setting the mode of"),
        "fchown" => (&["EPERM"], "setting the owner of"),
        "fsync" => (&["EIO"], "syncing"),
        "rename" if call.rest.contains(".msm-cni-temporary-") => (&["EIO", "EROFS"], "replacing"),
        "rename" => (&["EIO", "EROFS"], "renaming"),
        "symlink" => (&["ENOSPC"], "creating a temporary symlink for"),
        "unlink" => (&["EIO", "EROFS"], "removing"),
        name => panic!("no errors are listed for {name}"),
    }
}

#[test]
fn errors_in_fresh_install() {
    FRESH.survives_errors();
}

#[test]
fn errors_while_conf_is_converted() {
    CONVERSION.survives_errors();
}

#[test]
fn errors_while_earlier_implementation_is_replaced() {
    REPLACEMENT.survives_errors();
}

#[test]
fn errors_while_uninstalling() {
    UNINSTALL.survives_errors();
}

impl Scenario {
    fn survives_errors(&self) {
        if cannot_run(&["strace"]) {
            return;
        }
        let reference = self.reference();
        let changes = reference
            .calls
            .iter()
            .filter(|call| call.changes_the_disk());
        let points: Vec<(&Call, &str)> = changes
            .flat_map(|call| failures_of(call).0.iter().map(move |error| (call, *error)))
            .collect();
        assert!(points.len() > 10, "{:#?}", reference.calls);
        for_each(&points, |(call, error)| {
            let context = format!(
                "{error} at {} number {}: {}",
                call.name, call.number, call.rest
            );
            self.survives_error(call, error, &reference, &context);
        });
    }

    fn survives_error(&self, call: &Call, error: &str, reference: &Reference, context: &str) {
        let node = self.node();
        // The sync of a directory is retried immediately.
        let times = if call.name == "fsync" { 2 } else { 1 };
        let injection = call.expression(&format!("error={error}"), times);
        let mut traced = Traced::start_with(&node, self.args, Some(&injection));
        let installer = &mut traced.installer;
        let operation = failures_of(call).1;
        let reports = |text: &str| text.contains(operation) && text.contains("(os error");
        if let Then::Uninstall = self.then {
            assert!(self.complete(installer), "{context}");
            let log = installer.log();
            assert!(log.lines().any(reports), "{context}: {log}");
        } else {
            // On /readyz until the retry; in the log unless the write of that line failed.
            installer.wait_until(context, || {
                let body = installer.ready().map(|(_, body)| body);
                let log = installer.log();
                let warnings = log
                    .lines()
                    .filter(|line| line.starts_with("warn: not ready"));
                body.as_deref().into_iter().chain(warnings).any(reports)
            });
            let tree = Tree::of(&node);
            tree.is_made_of(&reference.stages.iter().collect::<Vec<_>>(), context);
            reference.has_working_network(&tree, context);
            installer.wait_until(&format!("ready after {context}"), || {
                // Ends the delay.
                installer.signal(Signal::SIGHUP);
                installer.is_ready()
            });
        }
        drop(traced);
        let tree = Tree::of(&node);
        assert!(
            tree == reference.after,
            "{context}: {tree:#?}\n{:#?}",
            reference.after
        );
    }
}

/// A call that always fails, and what the installer reports.
const PERMANENT: [(&str, &str); 5] = [
    ("fsync:error=EIO", "syncing"),
    ("fchmod:error=EPERM", "setting the mode of"),
    ("rename:error=EROFS", "replacing"),
    ("symlink:error=ENOSPC", "creating a temporary symlink for"),
    ("fchown:error=EPERM", "the capability CHOWN is needed"),
];

#[test]
fn permanent_error_is_retried_with_delays() {
    if cannot_run(&["strace"]) {
        return;
    }
    for_each(&PERMANENT, |(error, operation)| {
        let node = FRESH.node();
        let before = Tree::of(&node).networks();
        let injection = format!("inject={error}");
        let traced = Traced::start(&node, FRESH.args, &["trace=all", &injection]);
        let installer = &traced.installer;
        installer.becomes_unready(operation);
        let attempts = || {
            traced
                .calls()
                .iter()
                .filter(|call| call.rest.contains("(INJECTED)"))
                .count()
        };
        let first = attempts();
        installer.wait_until(&format!("a retry of {error}"), || attempts() > first);
        installer.becomes_unready(operation);
        let count = traced.calls().len();
        assert!(count < 3000, "{error}: {count} calls");
        let tree = Tree::of(&node);
        assert!(tree.temporaries().is_empty(), "{error}: {tree:#?}");
        assert_eq!(tree.networks(), before, "{error}: {tree:#?}");
        assert_eq!(installer.get("/healthz").unwrap().0, 200);
        let lines = installer.logged(operation);
        assert!((1..=2).contains(&lines), "{}", installer.log());
    });
}
