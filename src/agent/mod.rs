//! The installer: keeps executable, kubeconfig and the node's configuration as they should
//! be. One loop: observe → plan → apply → wait.

mod health; // /healthz and /readyz
mod uninstall; // what becomes of it all at the end

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use health::Health;

use crate::event::watch::{self, Wake, Watch};
use crate::fs::{self, Disk, NewFile};
use crate::logging;
use crate::node::netdir::template;
use crate::node::observe::{Observed, Observer};
use crate::node::plan;
use crate::node::settings::{self, Settings};
use crate::node::step::{Action, Cause, Plan};
use crate::node::throttle::Throttle;
use crate::text::error_chain;

/// In case that an event was lost.
const RESYNC: Duration = Duration::from_secs(60);
/// While something is missing that may appear where nobody watches.
const POLL: Duration = Duration::from_secs(1);
/// Not longer does it take to write a file, or to put another one in its place.
const GRACE: Duration = Duration::from_millis(200);
/// However many changes there are, no more looks than one in that time.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
const LARGEST_TEMPLATE: u64 = 1 << 20;

/// Of settings that cannot be used.
const USAGE_ERROR: u8 = 2;

/// Why the installer ends with an error.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{setting} is {}, which cannot be read", .path.display())]
    ReadTemplate {
        setting: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{setting} is no template that can be used")]
    Template {
        setting: String,
        source: template::Error,
    },
    #[error(transparent)]
    Health(#[from] health::Error),
    #[error(transparent)]
    Watch(#[from] watch::Error),
    #[error("removing what was installed: still there: {left}")]
    Leave { left: String, source: fs::Error },
    #[error("removing what was installed: a power cut could bring some of it back")]
    Unsynced { source: fs::Error },
    #[error(
        "removing what was installed: kubeconfig and executables stay, because {reason}, and pods may need them"
    )]
    CannotLeave { reason: String },
}

impl Error {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::ReadTemplate { .. } | Self::Template { .. } => USAGE_ERROR,
            Self::Health(_)
            | Self::Watch(_)
            | Self::Leave { .. }
            | Self::Unsynced { .. }
            | Self::CannotLeave { .. } => 1,
        }
    }
}

/// Runs until a signal ends it.
pub fn run(settings: Settings) -> ExitCode {
    logging::start_as(settings.log_level, settings.log_format);
    match Installer::start(settings).and_then(Installer::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", error_chain(&error));
            error.exit_code().into()
        }
    }
}

struct Installer {
    settings: Settings,
    watch: Watch,
    health: Health,
    observer: Observer,
    disk: Disk,
    /// Directories that symlinks of the runtime's directory lead to.
    linked_dirs: BTreeSet<PathBuf>,
    throttle: Throttle,
    /// When the disk was looked at for the last time.
    looked: Instant,
    /// What others have been told to be missing.
    missing: Vec<String>,
    /// Since when something else is.
    missing_since: Option<Instant>,
    /// From then on, what is not as it should be was changed by somebody else.
    was_ready: bool,
}

impl Installer {
    fn start(mut settings: Settings) -> Result<Self, Error> {
        // The mask of signals is to be in force before anything else happens.
        let watch = Watch::new()?;
        read_template(&mut settings)?;
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
            disk: Disk::default(),
            linked_dirs: BTreeSet::new(),
            throttle: Throttle::default(),
            looked: Instant::now(),
            missing: Vec::new(),
            missing_since: None,
            was_ready: false,
        })
    }

    fn run(mut self) -> Result<(), Error> {
        loop {
            self.cover_directories();
            let next = self.reconcile();
            if let Some(signal) = self.wait(next)? {
                return self.leave(signal);
            }
        }
    }

    fn cover_directories(&mut self) {
        let Settings {
            bin_dir,
            secondary_bin_dir,
            net_dir,
            service_account,
            server_verification,
            ..
        } = &self.settings;
        let authority = match server_verification {
            settings::ServerVerification::CaFile(path) => path.parent(),
            settings::ServerVerification::Skip => None,
        };
        let directories = [bin_dir, secondary_bin_dir, net_dir, service_account];
        let directories = directories.map(PathBuf::as_path).into_iter();
        let linked = self.linked_dirs.iter().map(PathBuf::as_path);
        self.watch.cover(directories.chain(authority).chain(linked));
    }

    /// Serves health until it is time for another look; the signal that ends it.
    fn wait(&mut self, mut next: Instant) -> Result<Option<Signal>, Error> {
        loop {
            match self.wake(next, &[])? {
                Wake::End(signal) => return Ok(Some(signal)),
                Wake::Retry => {
                    self.throttle.reset(Instant::now());
                    return Ok(None);
                }
                Wake::Change => next = next.min(self.looked + MIN_INTERVAL),
                Wake::Other => {}
            }
            if next <= Instant::now() {
                return Ok(None);
            }
        }
    }

    /// Waits until `until` at most, or until one of `others` can be read; serves health.
    fn wake(&mut self, until: Instant, others: &[BorrowedFd]) -> Result<Wake, Error> {
        let until = self.health.deadline().map_or(until, |it| it.min(until));
        let descriptors = [&self.health.descriptors(), others].concat();
        let wake = self.watch.wait(until, &descriptors)?;
        self.health.turn();
        Ok(wake)
    }

    /// Brings the disk nearer to what it should be; returns when to look again at the latest.
    fn reconcile(&mut self) -> Instant {
        let found = self.observe();
        if found.linked_dirs != self.linked_dirs {
            // They are not watched yet.
            self.linked_dirs = found.linked_dirs;
            return Instant::now();
        }
        let mut plan = plan::plan(&self.settings, &found);
        let now = Instant::now();
        self.looked = now;
        self.was_ready |= plan.is_empty();
        let kubeconfig = self.settings.kubeconfig();
        let mut paths = plan.steps.iter().map(|step| step.action.path());
        if paths.all(|path| path != kubeconfig) {
            self.observer.kubeconfig_is_current(&found);
        }
        self.throttle.look(&plan.steps, now);
        if self.apply(&mut plan, now) {
            // Whether it helped is seen at another look.
            return now;
        }
        let waiting = plan.waiting;
        let next = if self.is_blinking(&waiting, now) {
            now + GRACE
        } else {
            self.missing = waiting;
            self.missing_since = None;
            self.tell(now);
            let is_calm = self.missing.is_empty() && !self.watch.is_blind();
            now + if is_calm { RESYNC } else { POLL }
        };
        self.throttle.next().map_or(next, |it| it.min(next))
    }

    fn observe(&mut self) -> Observed {
        self.observer.observe(&self.settings, &self.disk)
    }

    /// Whether something may be missing only because it is just being written.
    fn is_blinking(&mut self, waiting: &[String], now: Instant) -> bool {
        let is_news = !waiting.is_empty() && waiting != self.missing;
        is_news && now < *self.missing_since.get_or_insert(now) + GRACE
    }

    /// Takes the steps that may be taken now, in order; whether there was one. One that
    /// cannot be taken holds up the others of its directory, and those that need all.
    fn apply(&mut self, plan: &mut Plan, now: Instant) -> bool {
        let mut has_changed = false;
        let mut held_up: Vec<PathBuf> = Vec::new();
        for (number, step) in std::mem::take(&mut plan.steps).into_iter().enumerate() {
            if number >= plan.independent && !held_up.is_empty() {
                break;
            }
            let directory = step.action.path().parent().map(Path::to_owned);
            let directory = directory.unwrap_or_default();
            if held_up.contains(&directory) {
                continue;
            }
            if self.throttle.delay_until(&step, now).is_some() {
                held_up.push(directory);
                continue;
            }
            match self.take(&step.action) {
                Ok(()) => {}
                // Another look leads to another plan.
                Err(error @ fs::Error::Outdated { .. }) => {
                    plan.waiting.push(error.to_string());
                    break;
                }
                Err(error) => {
                    self.throttle.failed(step, error_chain(&error), now);
                    self.tell(now);
                    held_up.push(directory);
                    continue;
                }
            }
            log::info!("{}: {}", step.action, step.reason);
            if step.cause == Cause::Repair && self.was_ready {
                self.health.readiness.mended += 1;
            }
            self.throttle.done(step, now);
            has_changed = true;
        }
        if has_changed {
            // What cannot be synced is a step of the next plan.
            let _ = self.disk.sync();
        }
        has_changed
    }

    /// Takes one step.
    fn take(&mut self, action: &Action) -> Result<(), fs::Error> {
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
                if *path == self.settings.kubeconfig() {
                    self.observer.lock.take(file);
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

    /// Tells whoever asks, and the log when it is news.
    fn tell(&mut self, now: Instant) {
        let mut reasons = self.missing.clone();
        reasons.extend(self.throttle.reasons(now));
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
}

/// A file goes before the text.
fn read_template(settings: &mut Settings) -> Result<(), Error> {
    let setting = settings.template_setting.clone();
    if let Some(path) = &settings.template_file {
        let bytes = fs::read_file(path, LARGEST_TEMPLATE);
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        settings.template = text.map_err(|source| Error::ReadTemplate {
            setting: setting.clone(),
            path: path.clone(),
            source,
        })?;
    }
    plan::check_template(settings).map_err(|source| Error::Template { setting, source })
}
