//! What becomes of what was installed when a signal ends the installer: it stays, unless
//! nobody wants it any more. When in doubt it stays: no pod is to start unredirected.

use std::io::{self, PipeReader};
use std::mem;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Error, Installer};
use crate::event::watch::Wake;
use crate::kube::{self, Credentials, DaemonSetState, PodRef};
use crate::node::lock::Holder;
use crate::node::observe;
use crate::node::plan;
use crate::node::settings::{Cleanup, Settings};
use crate::node::step::Plan;
use crate::text::error_chain;

/// For the question whether our `DaemonSet` is still wanted.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// By then there is an answer, if only that nobody has answered.
const QUESTION_END: Duration = Duration::from_millis(5500);

/// What somebody is just writing is complete by then.
const HALF_WRITTEN: Duration = Duration::from_millis(500);

impl Installer {
    /// Ends the installer.
    pub fn leave(mut self, signal: Signal) -> Result<(), Error> {
        let fate = match self.settings.cleanup {
            Cleanup::Always => DaemonSetState::Gone("--cleanup-on-exit is always".into()),
            Cleanup::Never => DaemonSetState::Present("--cleanup-on-exit is never".into()),
            Cleanup::Auto => self.fate()?,
        };
        if !matches!(fate, DaemonSetState::Gone(_)) {
            log::info!("{signal}: everything stays as it is: {fate}");
            return Ok(());
        }
        if self.observe().holder != Holder::Us {
            log::info!("{signal}: everything stays as it is: another installer is in charge of it");
            return Ok(());
        }
        log::info!("{signal}: what was installed goes: {fate}");
        self.remove_all()
    }

    /// Removes what was installed, and looks again for a while where somebody gets in the
    /// way, or is just writing what may hold our entry.
    fn remove_all(&mut self) -> Result<(), Error> {
        let mut end = Instant::now() + HALF_WRITTEN;
        loop {
            let found = self.observe();
            let mut plan = plan::removal(&self.settings, &found);
            let (is_in_flux, notes) = (plan.is_in_flux, mem::take(&mut plan.notes));
            let outcome = self.remove(plan);
            if Instant::now() >= end || (outcome.is_ok() && !is_in_flux) {
                for note in notes {
                    log::warn!("{note}");
                }
                return outcome;
            }
            if let Err(error) = outcome {
                log::info!("trying again: {}", error_chain(&error));
            }
            end = self.wait_for_change(end)?;
        }
    }

    /// Until `end` at most; another signal makes that now.
    fn wait_for_change(&mut self, end: Instant) -> Result<Instant, Error> {
        while Instant::now() < end {
            match self.wake(end, &[])? {
                Wake::End(_) => return Ok(Instant::now()),
                Wake::Change | Wake::Retry => break,
                Wake::Other => {}
            }
        }
        Ok(end)
    }

    fn remove(&mut self, plan: Plan) -> Result<(), Error> {
        let mut steps = plan.steps.into_iter();
        while let Some(step) = steps.next() {
            if let Err(source) = self.take(&step.action) {
                let left: Vec<_> = std::iter::once(step)
                    .chain(steps)
                    .map(|step| step.action.path().display().to_string())
                    .collect();
                return Err(Error::Leave {
                    left: left.join(", "),
                    source,
                });
            }
            log::info!("{}: {}", step.action, step.reason);
        }
        self.disk
            .sync()
            .map_err(|source| Error::Unsynced { source })?;
        if plan.waiting.is_empty() {
            return Ok(());
        }
        Err(Error::CannotLeave {
            reason: plan.waiting.join("; "),
        })
    }

    /// What the API server says about our `DaemonSet`. Health is served meanwhile, and
    /// another signal is not put off.
    fn fate(&mut self) -> Result<DaemonSetState, Error> {
        let end = Instant::now() + QUESTION_END;
        let question = match Question::ask(&self.settings) {
            Ok(question) => question,
            Err(reason) => return Ok(DaemonSetState::Unknown(reason)),
        };
        loop {
            if let Some(fate) = question.answer() {
                return Ok(fate);
            }
            if Instant::now() >= end {
                return Ok(DaemonSetState::Unknown(
                    "the API server does not answer".into(),
                ));
            }
            if let Wake::End(signal) = self.wake(end, &[question.answered.as_fd()])? {
                let reason = format!("{signal} came before the API server's answer");
                return Ok(DaemonSetState::Unknown(reason));
            }
        }
    }
}

/// A question that a thread of its own waits for the answer to.
struct Question {
    fate: Receiver<DaemonSetState>,
    /// Can be read once the answer is there.
    answered: PipeReader,
}

impl Question {
    fn ask(settings: &Settings) -> Result<Self, String> {
        let token = observe::token(&settings.service_account.join("token"))?;
        let authority = observe::authority(&settings.server_verification)?;
        let server = settings.api_server.clone();
        let named = settings.own_pod.as_ref();
        let pod = named
            .and_then(|(namespace, name)| PodRef::new(namespace, name, None).ok())
            .or_else(|| kube::pod_of_token(&token))
            .ok_or(
                "neither POD_NAMESPACE and POD_NAME nor the service account's token name our pod",
            )?;
        let (sender, fate) = mpsc::channel();
        let ask = move || {
            let credentials = Credentials {
                server: &server,
                ca_bundle: authority.as_deref(),
                token: &token,
            };
            // Nobody may wait for it any more.
            let _ = sender.send(kube::daemonset_state(&credentials, &pod, QUESTION_TIMEOUT));
        };
        let cannot = |error: io::Error| format!("the API server cannot be asked: {error}");
        let (answered, answering) = io::pipe().map_err(cannot)?;
        let ask = move || {
            ask();
            drop(answering);
        };
        thread::Builder::new().spawn(ask).map_err(cannot)?;
        Ok(Self { fate, answered })
    }

    fn answer(&self) -> Option<DaemonSetState> {
        match self.fate.try_recv() {
            Ok(fate) => Some(fate),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(DaemonSetState::Unknown(
                "the API server could not be asked".into(),
            )),
        }
    }
}
