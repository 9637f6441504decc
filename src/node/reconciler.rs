//! Brings the node's files to the desired state: observe, plan, apply. Opens no sockets and
//! waits for nothing: the caller decides when to take the next step.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::apply::Executor;
use super::lock::Holder;
use super::netdir::template;
use super::observe::{Observed, Observer};
use super::plan::{self, InstallPlan};
use super::schedule::Schedule;
use super::settings::{ServerVerification, Settings};
use super::throttle::Throttle;
use super::uninstall::{self, Attempt};
use crate::fs;

/// Size limit of a template file, in bytes.
const MAX_TEMPLATE: u64 = 1 << 20;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {} ({setting})", .path.display())]
    ReadTemplate {
        setting: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("invalid value for {setting}")]
    Template {
        setting: String,
        source: template::Error,
    },
}

/// The state after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Why the node is not ready; empty if it is. `None` if that is unknown, because the step
    /// changed something or because a file may be missing only briefly.
    pub reasons: Option<Vec<String>>,
    /// Drift repaired since the node was first ready.
    pub repairs: u64,
    /// When to take the next step at the earliest, after an event.
    pub earliest: Instant,
    /// When to take the next step at the latest.
    pub next: Instant,
}

pub struct Reconciler {
    settings: Settings,
    observer: Observer,
    executor: Executor,
    throttle: Throttle,
    schedule: Schedule,
    /// Directories that symlinks in the runtime's configuration directory lead to.
    linked_dirs: BTreeSet<PathBuf>,
    repairs: u64,
    /// Set once the node was in the desired state: later drift is caused by other processes.
    was_ready: bool,
}

impl Reconciler {
    /// Reads the template file, if one is set, and checks the template.
    pub fn new(mut settings: Settings, now: Instant) -> Result<Self, Error> {
        read_template(&mut settings)?;
        Ok(Self {
            observer: Observer::default(),
            executor: Executor::new(settings.kubeconfig()),
            throttle: Throttle::default(),
            schedule: Schedule::new(now),
            linked_dirs: BTreeSet::new(),
            repairs: 0,
            was_ready: false,
            settings,
        })
    }

    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The directories in which a change needs another step. They have to be watched before
    /// the next step, so that no change is missed.
    pub fn watched_dirs(&self) -> impl Iterator<Item = &Path> {
        let settings = &self.settings;
        let ca_dir = match &settings.server_verification {
            ServerVerification::CaFile(path) => path.parent(),
            ServerVerification::Skip => None,
        };
        let dirs = [
            &settings.bin_dir,
            &settings.secondary_bin_dir,
            &settings.net_dir,
            &settings.service_account,
        ];
        let linked = self.linked_dirs.iter().map(PathBuf::as_path);
        dirs.map(PathBuf::as_path)
            .into_iter()
            .chain(ca_dir)
            .chain(linked)
    }

    /// Ends all current delays, so that the next step retries everything.
    pub fn retry(&mut self, now: Instant) {
        self.throttle.reset(now);
    }

    /// Observes the node, and takes the steps that are possible now.
    pub fn step(&mut self, now: Instant) -> Status {
        let observed = self.observe();
        if observed.linked_dirs != self.linked_dirs {
            // They are not watched yet.
            self.linked_dirs = observed.linked_dirs;
            return self.status(None, now);
        }
        let install = plan::install(&self.settings, &observed);
        self.was_ready |= install.plan.is_empty();
        let kubeconfig = self.settings.kubeconfig();
        let mut paths = install.plan.steps.iter().map(|step| step.action.path());
        if paths.all(|path| path != kubeconfig) {
            self.observer.record_current_kubeconfig(&observed);
        }
        self.throttle.update(&install.plan.steps, now);
        self.apply(install, now)
    }

    /// Which installer owns the node.
    pub fn holder(&mut self) -> Holder {
        self.executor.lock.holder(&self.settings.kubeconfig())
    }

    /// Tries to remove the installation.
    pub fn uninstall(&mut self) -> Attempt {
        let observed = self.observe();
        let removal = plan::remove(&self.settings, &observed);
        uninstall::execute(&mut self.executor, removal)
    }

    fn observe(&mut self) -> Observed {
        let Executor { disk, lock, .. } = &mut self.executor;
        self.observer.observe(&self.settings, lock, disk.unsynced())
    }

    fn apply(&mut self, mut install: InstallPlan, now: Instant) -> Status {
        let mut waiting = std::mem::take(&mut install.plan.waiting);
        let applied = self.executor.apply(install, &mut self.throttle, now);
        if self.was_ready {
            self.repairs += applied.repairs;
        }
        waiting.extend(applied.outdated);
        let has_changed = applied.steps > 0;
        if has_changed {
            self.schedule.record_change(now);
        } else {
            self.schedule.record(now, waiting);
        }
        let is_known = applied.failures > 0 || (!has_changed && self.schedule.is_stable());
        let reasons = is_known.then(|| {
            let mut reasons = self.schedule.published().to_vec();
            reasons.extend(self.throttle.reasons(now));
            reasons
        });
        let next = if has_changed {
            // The next step observes the effect.
            now
        } else {
            let next = self.schedule.next();
            self.throttle.next().map_or(next, |it| it.min(next))
        };
        self.status(reasons, next)
    }

    fn status(&self, reasons: Option<Vec<String>>, next: Instant) -> Status {
        Status {
            reasons,
            repairs: self.repairs,
            earliest: self.schedule.earliest(),
            next,
        }
    }
}

fn read_template(settings: &mut Settings) -> Result<(), Error> {
    let setting = settings.template_setting.clone();
    if let Some(path) = &settings.template_file {
        let bytes = fs::read_file(path, MAX_TEMPLATE);
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        settings.template = text.map_err(|source| Error::ReadTemplate {
            setting: setting.clone(),
            path: path.clone(),
            source,
        })?;
    }
    plan::check_template(settings).map_err(|source| Error::Template { setting, source })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use msm_testkit::scratch::Scratch;

    use super::super::flags;
    use super::super::inputs::Inputs;
    use super::super::schedule::{POLL, RESYNC};
    use super::*;

    const TOKEN: &str = "var/run/secrets/kubernetes.io/serviceaccount/token";
    const CONF: &str = "host/etc/cni/net.d/10-x.conflist";
    const NETWORK: &str = r#"{"name": "n", "plugins": [{"type": "bridge"}]}"#;

    /// A node on a clock that only the test advances.
    struct Node {
        scratch: Scratch,
        now: Instant,
    }

    impl Node {
        fn new() -> Self {
            let node = Self {
                scratch: Scratch::new(),
                now: Instant::now(),
            };
            for file in ["host/opt/cni/bin/x", TOKEN, CONF] {
                fs::create_dir_all(node.path(file).parent().unwrap()).unwrap();
            }
            fs::write(node.path(TOKEN), "first.token.x").unwrap();
            fs::write(node.path(CONF), NETWORK).unwrap();
            node
        }

        fn path(&self, name: &str) -> PathBuf {
            self.scratch.path().join(name)
        }

        fn reconciler(&self) -> Reconciler {
            let root = format!("--root={}", self.scratch.path().display());
            let args = [
                root.as_str(),
                "--skip-tls-verify",
                "--skip-cni-binaries=msm-cni,msm-iptables",
            ];
            let values = flags::command_line().parse(args.map(Into::into)).unwrap();
            let vars = [
                ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
                ("KUBERNETES_SERVICE_PORT", "443"),
            ];
            let inputs = Inputs {
                flags: flags::given(&values),
                vars: &vars.into_iter().collect(),
            };
            Reconciler::new(Settings::new(&inputs, "node-1").unwrap(), self.now).unwrap()
        }

        /// Takes steps until one changes nothing.
        fn settle(&self, reconciler: &mut Reconciler) -> Status {
            for _ in 0..10 {
                let status = reconciler.step(self.now);
                if status.next > self.now {
                    return status;
                }
            }
            panic!("no convergence");
        }

        fn has_entry(&self) -> bool {
            let conf = fs::read_to_string(self.path(CONF)).unwrap();
            conf.contains("\"msm-cni\"")
        }
    }

    #[test]
    fn first_install_converges_and_counts_no_repair() {
        let node = Node::new();
        let status = node.settle(&mut node.reconciler());
        assert_eq!(status.reasons, Some(Vec::new()));
        assert_eq!((status.repairs, status.next), (0, node.now + RESYNC));
        assert!(node.has_entry());
    }

    #[test]
    fn missing_token_is_reported_after_the_grace_period() {
        let mut node = Node::new();
        let mut reconciler = node.reconciler();
        node.settle(&mut reconciler);
        fs::rename(node.path(TOKEN), node.path("token")).unwrap();
        let status = node.settle(&mut reconciler);
        assert_eq!(status.reasons, None);
        node.now = status.next;
        let status = node.settle(&mut reconciler);
        assert_eq!(status.next, node.now + POLL);
        let [reason] = status.reasons.unwrap().try_into().unwrap();
        assert!(reason.contains("service account token"), "{reason}");
        fs::rename(node.path("token"), node.path(TOKEN)).unwrap();
        assert_eq!(node.settle(&mut reconciler).reasons, Some(Vec::new()));
    }

    #[test]
    fn overwritten_entry_is_restored_at_once_and_then_with_delays() {
        let mut node = Node::new();
        let mut reconciler = node.reconciler();
        node.settle(&mut reconciler);
        // The first install counts as a repair of the file for a while.
        node.now += Duration::from_secs(60);
        let mut delays = Vec::new();
        for _ in 0..9 {
            fs::write(node.path(CONF), NETWORK).unwrap();
            let overwritten = node.now;
            let mut status = node.settle(&mut reconciler);
            while !node.has_entry() {
                let [reason] = status.reasons.unwrap().try_into().unwrap();
                assert!(reason.contains("keeps being overwritten"), "{reason}");
                node.now = status.next;
                status = node.settle(&mut reconciler);
            }
            delays.push((node.now - overwritten).as_secs());
        }
        assert_eq!(delays, [0, 0, 0, 0, 0, 0, 1, 2, 4]);
        node.now += Duration::from_secs(60);
        let status = node.settle(&mut reconciler);
        assert_eq!((status.reasons, status.repairs), (Some(Vec::new()), 9));
    }

    #[test]
    fn retry_ends_the_delays() {
        let node = Node::new();
        let mut reconciler = node.reconciler();
        node.settle(&mut reconciler);
        while node.has_entry() {
            fs::write(node.path(CONF), NETWORK).unwrap();
            node.settle(&mut reconciler);
        }
        reconciler.retry(node.now);
        node.settle(&mut reconciler);
        assert!(node.has_entry());
    }

    #[test]
    fn uninstall_restores_the_network_configuration() {
        let node = Node::new();
        let mut reconciler = node.reconciler();
        node.settle(&mut reconciler);
        let attempt = reconciler.uninstall();
        attempt.outcome.unwrap();
        assert!(!attempt.may_change && attempt.notes.is_empty());
        assert_eq!(fs::read_to_string(node.path(CONF)).unwrap(), NETWORK);
    }
}
