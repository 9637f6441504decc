//! Carries out steps on the disk, and logs each one.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::lock::NodeLock;
use super::plan::InstallPlan;
use super::settings::Settings;
use super::step::{Action, Cause};
use super::throttle::Throttle;
use crate::fs::{self, Disk, NewFile};
use crate::text::error_chain;

/// What changes the disk, and the lock on the kubeconfig that it writes.
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
    pub fn new(settings: &Settings) -> Self {
        Self {
            kubeconfig: settings.kubeconfig(),
            disk: Disk::default(),
            lock: NodeLock::default(),
        }
    }

    /// Takes, in order, the steps that the throttle allows now. A delayed or failed step holds
    /// up the following ones in its directory, and those that need all before them.
    pub fn apply(&mut self, plan: InstallPlan, throttle: &mut Throttle, now: Instant) -> Applied {
        let mut applied = Applied::default();
        let mut held_up: Vec<PathBuf> = Vec::new();
        for (number, step) in plan.plan.steps.into_iter().enumerate() {
            if number >= plan.independent && !held_up.is_empty() {
                break;
            }
            let directory = step.action.path().parent().map(Path::to_owned);
            let directory = directory.unwrap_or_default();
            if held_up.contains(&directory) {
                continue;
            }
            if throttle.delay_until(&step, now).is_some() {
                held_up.push(directory);
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
                    held_up.push(directory);
                }
            }
        }
        if applied.steps > 0 {
            // If this fails, the next plan has a step for it.
            let _ = self.disk.sync();
        }
        applied
    }

    /// Carries out one change.
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
