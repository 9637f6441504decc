//! One attempt to remove the installation. Whether to uninstall, and to try again, is decided
//! by the caller.

use super::apply::Executor;
use super::plan::RemovalPlan;
use super::step::Plan;
use crate::fs;

/// The outcome of an attempt.
#[derive(Debug)]
pub struct Attempt {
    pub outcome: Result<(), Error>,
    /// Remarks for the administrator.
    pub notes: Vec<String>,
    /// Whether another attempt may find more, because another process is writing a network
    /// configuration.
    pub may_change: bool,
}

/// Why the installation was not removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("uninstall is incomplete (not removed: {remaining})")]
    Incomplete {
        /// Paths.
        remaining: String,
        source: fs::Error,
    },
    #[error("uninstall is incomplete (files may reappear after a power loss)")]
    Unsynced { source: fs::Error },
    #[error(
        "uninstall is incomplete (kept: kubeconfig and executables, because a network configuration may need them): {reason}"
    )]
    EntryMayRemain { reason: String },
}

/// Takes the steps of the plan until one fails.
pub fn execute(executor: &mut Executor, removal: RemovalPlan) -> Attempt {
    let RemovalPlan {
        plan,
        notes,
        may_change,
    } = removal;
    Attempt {
        outcome: take_steps(executor, plan),
        notes,
        may_change,
    }
}

fn take_steps(executor: &mut Executor, plan: Plan) -> Result<(), Error> {
    let mut steps = plan.steps.into_iter();
    while let Some(step) = steps.next() {
        if let Err(source) = executor.execute(&step.action) {
            let remaining: Vec<String> = std::iter::once(step)
                .chain(steps)
                .map(|step| step.action.path().display().to_string())
                .collect();
            return Err(Error::Incomplete {
                remaining: remaining.join(", "),
                source,
            });
        }
        log::info!("{}: {}", step.action, step.reason);
    }
    let synced = executor.disk.sync();
    synced.map_err(|source| Error::Unsynced { source })?;
    if plan.waiting.is_empty() {
        return Ok(());
    }
    Err(Error::EntryMayRemain {
        reason: plan.waiting.join("; "),
    })
}
