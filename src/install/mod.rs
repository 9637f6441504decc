//! The installer: keeps executable, kubeconfig and the node's configuration as they should
//! be. One loop: observe → plan → apply → wait.

mod backoff; // how long to wait before doing the same again
mod conflist; // our entry in the node's configuration
mod disk; // changes that are whole or not at all
mod health; // /healthz and /readyz
mod observe; // what is on the disk
mod plan; // what has to be done
pub mod settings; // flags and environment
mod template; // the plugin's entry
mod watch; // what wakes the loop

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use backoff::Backoff;
use health::Health;
use observe::Observer;
use plan::{Action, Cause, Plan, Step};
use settings::{Cleanup, Settings};
use watch::{Wake, Watch};

use crate::kube::{self, Credentials, Fate, OwnPod};
use crate::logging;
use crate::process::chain;

/// In case that an event was lost.
const SLOW_CLOCK: Duration = Duration::from_secs(60);
/// While something is missing that may appear where nobody watches.
const WAITING_CLOCK: Duration = Duration::from_secs(1);
/// How often a file of ours may be rewritten in short order before it counts as a fight.
const PATIENCE: u32 = 5;
/// For the question whether our `DaemonSet` is still wanted.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
const LARGEST_TEMPLATE: u64 = 1 << 20;

/// Why the installer ends with 1.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading the template of the plugin's configuration {}", .path.display())]
    ReadTemplate { path: PathBuf, source: io::Error },
    #[error("the plugin's configuration cannot be made")]
    Template { source: template::Error },
    #[error(transparent)]
    Health(#[from] health::Error),
    #[error(transparent)]
    Watch(#[from] watch::Error),
    #[error("removing what was installed: not all of it is gone")]
    Leave { source: disk::Error },
    #[error("removing what was installed: {reason}")]
    CannotLeave { reason: String },
}

/// Runs until a signal ends it.
pub fn run(settings: Settings) -> ExitCode {
    logging::start_as(settings.log_level, settings.log_format);
    match Installer::start(settings).and_then(Installer::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

struct Installer {
    settings: Settings,
    watch: Watch,
    health: Health,
    observer: Observer,
    /// Repairs of what others have changed.
    rewrites: Backoff,
    repaired: Option<PathBuf>,
    /// Changes that did not come about.
    failures: Backoff,
    failure: Option<String>,
    /// From then on, what is not as it should be was changed by somebody else.
    was_ready: bool,
}

impl Installer {
    fn start(mut settings: Settings) -> Result<Self, Error> {
        if let Some(path) = &settings.template_file {
            let bytes = disk::read(path, LARGEST_TEMPLATE);
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
            settings.template = text.map_err(|source| Error::ReadTemplate {
                path: path.clone(),
                source,
            })?;
        }
        plan::check_template(&settings).map_err(|source| Error::Template { source })?;
        // The mask of signals is to be in force before anything else happens.
        let watch = Watch::new()?;
        let health = Health::serve_on(settings.health_address)?;
        log::info!(
            "msm-cni {} keeps {} and {} as they should be; health on {}",
            env!("CARGO_PKG_VERSION"),
            settings.bin_dir.display(),
            settings.net_dir.display(),
            settings.health_address
        );
        Ok(Self {
            settings,
            watch,
            health,
            observer: Observer::default(),
            rewrites: Backoff::new(PATIENCE),
            repaired: None,
            failures: Backoff::new(0),
            failure: None,
            was_ready: false,
        })
    }

    fn run(mut self) -> Result<(), Error> {
        loop {
            self.cover_directories();
            let deadline = self.reconcile();
            if let Some(signal) = self.wait(deadline)? {
                return self.leave(signal);
            }
        }
    }

    fn cover_directories(&self) {
        let Settings {
            bin_dir,
            secondary_bin_dir,
            net_dir,
            service_account,
            trust,
            ..
        } = &self.settings;
        let authority = match trust {
            settings::Trust::AuthorityFile(path) => path.parent(),
            settings::Trust::Anyone => None,
        };
        let directories = [bin_dir, secondary_bin_dir, net_dir, service_account];
        let directories = directories.map(PathBuf::as_path).into_iter();
        for directory in directories.chain(authority) {
            self.watch.cover(directory);
        }
    }

    /// Serves health until something else happens; the signal that ends it.
    fn wait(&mut self, deadline: Instant) -> Result<Option<Signal>, Error> {
        loop {
            let until = self
                .health
                .deadline()
                .map_or(deadline, |it| it.min(deadline));
            match self.watch.wait(until, &self.health.descriptors())? {
                Wake::End(signal) => return Ok(Some(signal)),
                Wake::Change => return Ok(None),
                Wake::Clock if until == deadline => return Ok(None),
                Wake::Clock | Wake::Other => self.health.turn(),
            }
        }
    }

    /// Brings the disk to what it should be as far as that goes now; returns when to look
    /// again at the latest.
    fn reconcile(&mut self) -> Instant {
        loop {
            let found = self.observer.observe(&self.settings);
            let plan = plan::plan(&self.settings, &found);
            let now = Instant::now();
            if plan.steps.is_empty() {
                self.failure = None;
                self.failures.reset();
            }
            let pauses = [self.failures.not_before(now), self.rewrites.not_before(now)];
            let pause = pauses.into_iter().flatten().max();
            if plan.steps.is_empty() || pause.is_some() {
                self.tell(&plan, now);
                return self.next_look(&plan, pause, now);
            }
            self.apply(plan.steps, now);
        }
    }

    fn apply(&mut self, steps: Vec<Step>, now: Instant) {
        for step in &steps {
            if let Err(error) = apply(&step.action) {
                self.failure = Some(chain(&error));
                self.failures.record(now);
                return;
            }
            log::info!("{}: {}", step.action, step.reason);
        }
        self.failure = None;
        self.failures.reset();
        let repaired = steps.into_iter().find(|step| step.cause == Cause::Repair);
        if let Some(step) = repaired
            && self.was_ready
        {
            self.rewrites.record(now);
            self.repaired = Some(step.action.path().to_owned());
            self.health.readiness.mended += 1;
        }
    }

    /// Tells whoever asks, and the log when it is news.
    fn tell(&mut self, plan: &Plan, now: Instant) {
        let fight = self
            .rewrites
            .excess(now)
            .zip(self.repaired.as_deref())
            .map(|(times, path)| fight(times, path));
        let reasons: Vec<String> = plan
            .waiting
            .iter()
            .cloned()
            .chain(self.failure.clone())
            .chain(fight)
            .collect();
        self.was_ready |= plan.is_empty();
        let known = &mut self.health.readiness.reasons;
        if *known == reasons {
            return;
        }
        if reasons.is_empty() {
            log::info!("ready: everything on this node is as it should be");
        }
        for reason in reasons.iter().filter(|reason| !known.contains(reason)) {
            log::warn!("not ready: {reason}");
        }
        *known = reasons;
    }

    fn next_look(&self, plan: &Plan, pause: Option<Instant>, now: Instant) -> Instant {
        let waiting = (!plan.waiting.is_empty()).then(|| now + WAITING_CLOCK);
        [
            Some(now + SLOW_CLOCK),
            waiting,
            pause,
            self.rewrites.quiet_at(),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
        .unwrap_or(now + WAITING_CLOCK)
    }

    /// What becomes of what was installed.
    fn leave(mut self, signal: Signal) -> Result<(), Error> {
        let (goes, reason) = match self.settings.cleanup {
            Cleanup::Always => (true, "--cleanup-on-exit is always".to_owned()),
            Cleanup::Never => (false, "--cleanup-on-exit is never".to_owned()),
            Cleanup::Auto => {
                let fate = self.fate();
                (matches!(fate, Fate::Unwanted(_)), fate.to_string())
            }
        };
        if !goes {
            log::info!("{signal}: everything stays as it is: {reason}");
            return Ok(());
        }
        log::info!("{signal}: what was installed goes: {reason}");
        let found = self.observer.observe(&self.settings);
        let Plan { steps, waiting } = plan::removal(&self.settings, &found);
        // Whatever comes next would break pods as long as an entry may be there.
        if let Some(reason) = waiting.into_iter().next() {
            return Err(Error::CannotLeave { reason });
        }
        for Step { action, reason, .. } in steps {
            apply(&action).map_err(|source| Error::Leave { source })?;
            log::info!("{action}: {reason}");
        }
        Ok(())
    }

    /// Asks the API server whether our `DaemonSet` is still wanted.
    fn fate(&self) -> Fate {
        let token = observe::token(&self.settings.service_account.join("token"));
        let (token, authority) = match (token, observe::authority(&self.settings.trust)) {
            (Ok(token), Ok(authority)) => (token, authority),
            (Err(reason), _) | (_, Err(reason)) => return Fate::Unknown(reason),
        };
        let named = self
            .settings
            .own_pod
            .as_ref()
            .and_then(|(namespace, name)| OwnPod::new(namespace, name, None).ok());
        let Some(pod) = named.or_else(|| OwnPod::of_token(&token)) else {
            return Fate::Unknown(
                "neither POD_NAME and POD_NAMESPACE nor the service account's token name our pod"
                    .into(),
            );
        };
        let credentials = Credentials {
            server: &self.settings.api_server,
            authority: authority.as_deref(),
            token: &token,
        };
        kube::fate(&credentials, &pod, QUESTION_TIMEOUT)
    }
}

fn apply(action: &Action) -> Result<(), disk::Error> {
    match action {
        Action::CopyExecutable { path, mode } => disk::copy_own_executable(path, *mode),
        Action::Link { path, target } => disk::link(target, path),
        Action::Write {
            path,
            content,
            mode,
            owner,
        } => disk::write(path, content, *mode, *owner),
        Action::Rename { from, to } => disk::rename(from, to),
        Action::Remove { path } => disk::remove(path),
    }
}

fn fight(times: u32, path: &Path) -> String {
    format!(
        "{} was changed by somebody else {times} times in short order, and is put right less often now; \
         another network plugin may want the file for itself, as Cilium does: set its cni.exclusive to false",
        path.display()
    )
}
