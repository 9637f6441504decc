//! A disk that does not do what it is told: every call that changes it does not succeed for a
//! while, then for ever. The installer says what it could not do and goes on trying, nothing
//! is half done, and in the end everything is as if nothing had happened.

use msm_testkit::cannot_run;
use nix::sys::signal::Signal;

use crate::kill::{CONVERSION, Course, DEPARTURE, EARLIER, FRESH, Scenario, Then, for_each};
use crate::strace::{Call, Traced};
use crate::tree::Tree;

/// What a disk may say, and what the installer makes of it.
fn trouble(call: &Call) -> (&'static [&'static str], &'static str) {
    match call.name.as_str() {
        "open" | "openat" => (
            &["EACCES", "ENOSPC", "EROFS"],
            "creating a temporary file for",
        ),
        "write" | "sendfile" | "copy_file_range" => (&["ENOSPC", "EIO"], "writing"),
        "fchmod" => (&["EPERM"], "setting the mode of"),
        "fchown" => (&["EPERM"], "keeping the owner of"),
        "fsync" => (&["EIO"], "syncing"),
        "rename" if call.rest.contains(".msm-cni-temporary-") => (&["EIO", "EROFS"], "replacing"),
        "rename" => (&["EIO", "EROFS"], "renaming"),
        "symlink" => (&["ENOSPC"], "making a temporary symlink for"),
        "unlink" => (&["EIO", "EROFS"], "removing"),
        name => panic!("what can go wrong with {name}?"),
    }
}

#[test]
fn errors_in_a_fresh_install() {
    FRESH.survives_errors();
}

#[test]
fn errors_when_a_conf_becomes_a_list() {
    CONVERSION.survives_errors();
}

#[test]
fn errors_while_it_takes_the_place_of_the_earlier_implementation() {
    EARLIER.survives_errors();
}

#[test]
fn errors_while_it_leaves() {
    DEPARTURE.survives_errors();
}

impl Scenario {
    fn survives_errors(&self) {
        if cannot_run(&["strace"]) {
            return;
        }
        let course = self.course();
        let changes = course.calls.iter().filter(|call| call.changes_the_disk());
        let points: Vec<(&Call, &str)> = changes
            .flat_map(|call| trouble(call).0.iter().map(move |error| (call, *error)))
            .collect();
        assert!(points.len() > 10, "{:#?}", course.calls);
        for_each(&points, |(call, error)| {
            let context = format!(
                "{error} at {} number {}: {}",
                call.name, call.number, call.rest
            );
            self.survives_error(call, error, &course, &context);
        });
    }

    fn survives_error(&self, call: &Call, error: &str, course: &Course, context: &str) {
        let node = self.node();
        // A directory is synced again at once.
        let times = if call.name == "fsync" { 2 } else { 1 };
        let injection = call.expression(&format!("error={error}"), times);
        let mut traced = Traced::start_with(&node, self.args, Some(&injection));
        let installer = &mut traced.installer;
        let doing = trouble(call).1;
        let is_told = |text: &str| text.contains(doing) && text.contains("(os error");
        if let Then::Leave = self.then {
            assert!(self.goes_on(installer), "{context}");
            let log = installer.log();
            assert!(log.lines().any(is_told), "{context}: {log}");
        } else {
            // Told to whoever asks in time, and to the log if that is not what has failed.
            installer.wait_until(context, || {
                let body = installer.ready().map(|(_, body)| body);
                let log = installer.log();
                let warnings = log
                    .lines()
                    .filter(|line| line.starts_with("warn: not ready"));
                body.as_deref().into_iter().chain(warnings).any(is_told)
            });
            let tree = Tree::of(&node);
            tree.is_made_of(&course.stages.iter().collect::<Vec<_>>(), context);
            course.has_working_network(&tree, context);
            installer.wait_until(&format!("ready after {context}"), || {
                // Cuts the pause short.
                installer.signal(Signal::SIGHUP);
                installer.is_ready()
            });
        }
        drop(traced);
        let tree = Tree::of(&node);
        assert!(
            tree == course.after,
            "{context}: {tree:#?}\n{:#?}",
            course.after
        );
    }
}

/// A call that never succeeds, and what is said about it.
const STUBBORN: [(&str, &str); 5] = [
    ("fsync:error=EIO", "syncing"),
    ("fchmod:error=EPERM", "setting the mode of"),
    ("rename:error=EROFS", "replacing"),
    ("symlink:error=ENOSPC", "making a temporary symlink for"),
    (
        "fchown:error=EPERM",
        "the installer needs the capability CHOWN",
    ),
];

#[test]
fn what_never_succeeds_is_tried_now_and_then() {
    if cannot_run(&["strace"]) {
        return;
    }
    for_each(&STUBBORN, |(error, doing)| {
        let node = FRESH.node();
        let before = Tree::of(&node).networks();
        let injection = format!("inject={error}");
        let traced = Traced::start(&node, FRESH.args, &["trace=all", &injection]);
        let installer = &traced.installer;
        installer.becomes_unready(doing);
        let attempts = || {
            traced
                .calls()
                .iter()
                .filter(|call| call.rest.contains("(INJECTED)"))
                .count()
        };
        let first = attempts();
        installer.wait_until(&format!("another try of {error}"), || attempts() > first);
        installer.becomes_unready(doing);
        let count = traced.calls().len();
        assert!(count < 3000, "{error}: {count} calls");
        let tree = Tree::of(&node);
        assert!(tree.temporaries().is_empty(), "{error}: {tree:#?}");
        assert_eq!(tree.networks(), before, "{error}: {tree:#?}");
        assert_eq!(installer.get("/healthz").unwrap().0, 200);
        let told = installer
            .log()
            .lines()
            .filter(|line| line.contains(doing))
            .count();
        assert!((1..=2).contains(&told), "{}", installer.log());
    });
}
