//! The node agent, run by the `DaemonSet`: one loop that reconciles the node's files and serves
//! health, until a signal ends it.

mod error;
mod events;
mod health;
mod uninstall;

use std::process::ExitCode;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::event::signals::Signals;
use crate::http::Server;
use crate::logging;
use crate::node::settings::Settings;
use crate::node::{POLL, Reconciler, Status};
use crate::text::error_chain;
use error::Error;
use events::{Events, SIGNALS, Wake};

/// Runs until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> ExitCode {
    logging::start_as(settings.log_level, settings.log_format);
    match start(settings).and_then(|mut agent| agent.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = error.advice().map(|advice| format!("; {advice}"));
            log::error!("{}{}", error_chain(&error), advice.unwrap_or_default());
            error.exit_code().into()
        }
    }
}

struct Agent {
    reconciler: Reconciler,
    events: Events,
}

fn start(settings: Settings) -> Result<Agent, Error> {
    // Before anything else: a signal that is not blocked yet kills the process.
    let signals = Signals::block(&SIGNALS).map_err(|source| Error::Signals { source })?;
    let reconciler = Reconciler::new(settings, Instant::now())?;
    let settings = reconciler.settings();
    let address = settings.health_address;
    let server = Server::bind(address).map_err(|source| Error::Health { address, source })?;
    log::info!(
        "msm-cni {} manages {} and {}; serving health on {address}",
        env!("CARGO_PKG_VERSION"),
        settings.bin_dir.display(),
        settings.net_dir.display(),
    );
    Ok(Agent {
        events: Events::new(signals, server),
        reconciler,
    })
}

impl Agent {
    fn run(&mut self) -> Result<(), Error> {
        loop {
            self.events.watch_dirs(self.reconciler.watched_dirs());
            let status = self.reconciler.step(Instant::now());
            self.events.readiness.publish(&status);
            if let Some(signal) = self.wait(&status)? {
                return uninstall::on_exit(signal, &mut self.reconciler, &mut self.events);
            }
        }
    }

    /// Waits until it is time for the next reconcile, or for a signal to exit.
    fn wait(&mut self, status: &Status) -> Result<Option<Signal>, Error> {
        let mut next = status.next;
        if self.events.is_degraded() {
            next = next.min(Instant::now() + POLL);
        }
        loop {
            let wake = self.events.wait(next, None);
            match wake.map_err(|source| Error::Wait { source })? {
                Wake::Exit(signal) => return Ok(Some(signal)),
                Wake::Retry => {
                    self.reconciler.retry(Instant::now());
                    return Ok(None);
                }
                Wake::Change => next = next.min(status.earliest),
                Wake::Other => {}
            }
            if next <= Instant::now() {
                return Ok(None);
            }
        }
    }
}
