//! Decides at exit whether the installation is removed. When in doubt it is kept: a pod that
//! starts without the redirect is worse than an unused file.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::error::Error;
use super::events::{Events, Wake};
use crate::event::task::{Progress, Task};
use crate::kube::{self, Credentials, DaemonSetState, PodRef};
use crate::node::Reconciler;
use crate::node::lock::Holder;
use crate::node::observe;
use crate::node::settings::Settings;
use crate::node::values::Cleanup;
use crate::text::error_chain;

/// For the API requests about the `DaemonSet`.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// For the thread that sends them. Longer, so that its own error is reported.
const TASK_TIMEOUT: Duration = Duration::from_millis(5500);
/// For further attempts after a failed one, and for other processes to complete their files.
const RETRY_PERIOD: Duration = Duration::from_millis(500);

/// Uninstalls if the settings or the state of the `DaemonSet` say so.
pub fn on_exit(
    signal: Signal,
    reconciler: &mut Reconciler,
    events: &mut Events,
) -> Result<(), Error> {
    let state = match reconciler.settings().cleanup {
        Cleanup::Always => DaemonSetState::Gone("--cleanup-on-exit is always".into()),
        Cleanup::Never => DaemonSetState::Present("--cleanup-on-exit is never".into()),
        Cleanup::Auto => daemonset_state(reconciler.settings(), events)?,
    };
    if !matches!(state, DaemonSetState::Gone(_)) {
        log::info!("{signal}: leaving the installation in place: {state}");
        return Ok(());
    }
    if reconciler.holder() != Holder::Us {
        log::info!("{signal}: leaving the installation in place: another installer owns this node");
        return Ok(());
    }
    log::info!("{signal}: uninstalling: {state}");
    uninstall(reconciler, events)
}

/// Repeats the attempt for a while if it fails, or if another process is writing a file that
/// may contain the plugin entry. The last attempt starts after that period.
fn uninstall(reconciler: &mut Reconciler, events: &mut Events) -> Result<(), Error> {
    let mut end = Instant::now() + RETRY_PERIOD;
    loop {
        let is_last = Instant::now() >= end;
        let attempt = reconciler.uninstall();
        let is_complete = attempt.outcome.is_ok() && !attempt.may_change;
        if is_complete || is_last {
            for note in attempt.notes {
                log::warn!("{note}");
            }
            return Ok(attempt.outcome?);
        }
        if let Err(error) = attempt.outcome {
            log::info!("{}; retrying", error_chain(&error));
        }
        end = wait_for_change(events, end)?;
    }
}

/// Returns when to try for the last time: at `end`, or now after another signal.
fn wait_for_change(events: &mut Events, end: Instant) -> Result<Instant, Error> {
    while Instant::now() < end {
        match wait(events, end, None)? {
            Wake::Exit(_) => return Ok(Instant::now()),
            Wake::Change | Wake::Retry => break,
            Wake::Other => {}
        }
    }
    Ok(end)
}

/// Asks the API server. Health is served meanwhile; another signal ends the wait.
fn daemonset_state(settings: &Settings, events: &mut Events) -> Result<DaemonSetState, Error> {
    let end = Instant::now() + TASK_TIMEOUT;
    let query = match query(settings) {
        Ok(query) => query,
        Err(reason) => return Ok(DaemonSetState::Unknown(reason)),
    };
    let unknown = |reason: &str| DaemonSetState::Unknown(reason.into());
    loop {
        match query.poll() {
            Progress::Finished(state) => return Ok(state),
            Progress::NoResult => return Ok(unknown("the request to the API server was aborted")),
            Progress::Running => {}
        }
        if Instant::now() >= end {
            return Ok(unknown("the request to the API server timed out"));
        }
        if let Wake::Exit(signal) = wait(events, end, Some(&query))? {
            let reason = format!("{signal} arrived before the API server responded");
            return Ok(DaemonSetState::Unknown(reason));
        }
    }
}

fn wait(
    events: &mut Events,
    end: Instant,
    query: Option<&Task<DaemonSetState>>,
) -> Result<Wake, Error> {
    events
        .wait(end, query.map(AsFd::as_fd))
        .map_err(|source| Error::Wait { source })
}

/// Starts the requests about the `DaemonSet`. The error is why they cannot be sent.
fn query(settings: &Settings) -> Result<Task<DaemonSetState>, String> {
    let token = observe::token(&settings.service_account.join("token"))?;
    let ca_bundle = observe::ca_bundle(&settings.server_verification)?;
    let server = settings.api_server.clone();
    let named = settings.own_pod.as_ref();
    let pod = named
        .and_then(|(namespace, name)| PodRef::new(namespace, name, None).ok())
        .or_else(|| kube::pod_of_token(&token))
        .ok_or("the name of this pod is unknown: set POD_NAMESPACE and POD_NAME")?;
    let task = Task::spawn(move || {
        let credentials = Credentials {
            server: &server,
            ca_bundle: ca_bundle.as_deref(),
            token: &token,
        };
        kube::daemonset_state(&credentials, &pod, QUERY_TIMEOUT)
    });
    task.map_err(|error: io::Error| format!("cannot start a thread for the API request: {error}"))
}
