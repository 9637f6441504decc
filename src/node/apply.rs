//! Carries out steps on the disk, and logs each one.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::lock::NodeLock;
use super::plan::InstallPlan;
use super::step::{Action, Cause};
use super::throttle::Throttle;
use crate::fs::{self, Disk, NewFile};
use crate::text::error_chain;

/// Changes the disk, and holds the lock on the kubeconfig.
pub struct Executor {
    kubeconfig: PathBuf,
    pub disk: Disk,
    pub lock: NodeLock,
}

/// The outcome of the steps of one plan.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Successful steps.
    pub steps: usize,
    /// Those of them that repaired drift.
    pub repairs: u64,
    pub failures: usize,
    /// A file changed after it was observed; the remaining steps were not taken.
    pub outdated: Option<String>,
}

impl Executor {
    pub fn new(kubeconfig: PathBuf) -> Self {
        Self {
            kubeconfig,
            disk: Disk::default(),
            lock: NodeLock::default(),
        }
    }

    /// Takes, in order, the steps that the throttle allows now. A delayed or failed step blocks
    /// the later steps in its directory, and all steps that are not independent.
    pub fn apply(&mut self, plan: InstallPlan, throttle: &mut Throttle, now: Instant) -> Applied {
        let mut applied = Applied::default();
        let mut blocked: Vec<PathBuf> = Vec::new();
        for (number, step) in plan.plan.steps.into_iter().enumerate() {
            if number >= plan.independent && !blocked.is_empty() {
                break;
            }
            let directory = step.action.path().parent().map(Path::to_owned);
            let directory = directory.unwrap_or_default();
            if blocked.contains(&directory) {
                continue;
            }
            if throttle.delay_until(&step, now).is_some() {
                blocked.push(directory);
                continue;
            }
            match self.execute(&step.action) {
                Ok(()) => {
                    log::info!("{}: {}", step.action, step.reason);
                    applied.steps += 1;
                    applied.repairs += u64::from(step.cause == Cause::Repair);
                    throttle.done(step, now);
                }
                Err(error @ fs::Error::Outdated { .. }) => {
                    applied.outdated = Some(error.to_string());
                    break;
                }
                Err(error) => {
                    applied.failures += 1;
                    throttle.failed(step, error_chain(&error), now);
                    blocked.push(directory);
                }
            }
        }
        if applied.steps > 0 {
            // If this fails, the next plan has a step for it.
            let _ = self.disk.sync();
        }
        applied
    }

    pub fn execute(&mut self, action: &Action) -> Result<(), fs::Error> {
        match action {
            Action::CopyExecutable { path, mode } => self.disk.copy_own_executable(path, *mode),
            Action::Link { path, target } => self.disk.link(path, target),
            Action::Write {
                path,
                content,
                mode,
                owner,
                instead_of,
            } => {
                let new = NewFile {
                    path,
                    mode: *mode,
                    owner: *owner,
                    instead_of: instead_of.as_deref(),
                };
                let file = self.disk.write(new, content)?;
                if *path == self.kubeconfig {
                    self.lock.keep(file);
                }
                Ok(())
            }
            Action::BackUp {
                path,
                backup,
                content,
            } => self.disk.back_up(path, backup, content),
            Action::Restore { path, backup } => self.disk.restore(path, backup),
            Action::Remove { path } => self.disk.remove(path),
            Action::Sync { .. } => self.disk.sync(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use msm_testkit::scratch::Scratch;

    use super::*;
    use crate::node::step::{Plan, Step};

    fn write(path: PathBuf, instead_of: Option<&str>) -> Step {
        Step {
            action: Action::Write {
                path,
                content: b"new".to_vec(),
                mode: 0o600,
                owner: None,
                instead_of: instead_of.map(|text| text.as_bytes().to_vec()),
            },
            reason: "it was missing".into(),
            cause: Cause::Repair,
        }
    }

    fn install(steps: Vec<Step>, independent: usize) -> InstallPlan {
        InstallPlan {
            plan: Plan {
                steps,
                waiting: Vec::new(),
            },
            independent,
        }
    }

    #[test]
    fn failed_step_blocks_its_directory_and_dependent_steps() {
        let scratch = Scratch::new();
        let path = |name: &str| scratch.path().join(name);
        fs::create_dir(path("other")).unwrap();
        let plan = || {
            let steps = ["missing/a", "missing/b", "other/c", "d"];
            install(steps.map(|it| write(path(it), None)).into(), 3)
        };
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let mut executor = Executor::new(path("kubeconfig"));
        let applied = executor.apply(plan(), &mut throttle, now);
        assert_eq!(
            (applied.steps, applied.repairs, applied.failures),
            (1, 1, 1)
        );
        assert!(path("other/c").exists() && !path("d").exists());
        let [reason] = throttle.reasons(now).try_into().unwrap();
        assert!(reason.contains("missing/a"), "{reason}");

        // The failed step is delayed now, with the same effect.
        fs::create_dir(path("missing")).unwrap();
        let applied = executor.apply(plan(), &mut throttle, now);
        assert_eq!((applied.steps, applied.failures), (1, 0));
        let later = throttle.next().unwrap();
        let applied = executor.apply(plan(), &mut throttle, later);
        assert_eq!((applied.steps, applied.failures), (4, 0));
        assert!(path("missing/b").exists() && path("d").exists());
    }

    #[test]
    fn outdated_plan_is_not_continued() {
        let scratch = Scratch::new();
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("a"), "changed").unwrap();
        let steps = vec![write(path("a"), Some("observed")), write(path("b"), None)];
        let mut throttle = Throttle::default();
        let mut executor = Executor::new(path("kubeconfig"));
        let applied = executor.apply(install(steps, 2), &mut throttle, Instant::now());
        assert_eq!((applied.steps, applied.failures), (0, 0));
        assert!(applied.outdated.unwrap().contains("another process"));
        assert_eq!(fs::read(path("a")).unwrap(), b"changed");
        assert!(!path("b").exists());
        assert_eq!(throttle.reasons(Instant::now()), Vec::<String>::new());
    }
}
