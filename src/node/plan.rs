//! What has to be done so that the disk is as it should be: a list of steps, worked out of
//! what was found. Pure. The order is such that at no moment the node's configuration names
//! a plugin that is not there, or a plugin that could not work.

use crate::kube::{self, Credentials};
use crate::names::{CNI_APPLET, EXECUTABLE, STAND_ALONE_FILE};
use crate::node::lock::Holder;
use crate::node::netdir::NetDir;
use crate::node::netdir::conflist::NetworkConfig;
use crate::node::netdir::template::{self, Entry};
use crate::node::observe::{BinDir, Drift, FileSnapshot, FileState, Observed};
use crate::node::settings::{ExecutableAtCleanup, Placement, Replacement, Settings};
use crate::node::step::{Action, Cause, Plan, metadata_drift};
use crate::text::error_chain;

const EXECUTABLE_MODE: u32 = 0o755;
const KUBECONFIG_COMMENT: &str = "Managed by the installer of msm-cni: changes are overwritten.";

/// What should be there.
pub fn plan(settings: &Settings, found: &Observed) -> Plan {
    let mut plan = Plan::default();
    plan.sync(found);
    if found.holder == Holder::Newer {
        plan.wait(format!(
            "an installer that was started later is in charge of this node, by the lock on {}; this one looks on",
            settings.kubeconfig().display()
        ));
        return plan;
    }
    plan.remove_temporaries(found);
    plan.executables(settings, found);
    plan.kubeconfig(settings, found);
    plan.independent = plan.steps.len();
    match (entry(settings, found), NetDir::new(settings, found)) {
        (Err(reason), _) => plan.wait(reason),
        (_, Err(reason)) => plan.wait(reason.to_owned()),
        // A pod would fail to start with an entry whose plugin cannot work.
        (Ok(entry), Ok(directory)) if can_work(found) => match settings.placement {
            Placement::Chained => directory.chain(&entry, &mut plan),
            Placement::StandAlone => directory.stand_alone(&entry, found.own_uid, &mut plan),
        },
        _ => {}
    }
    plan
}

/// What is to be done so that nothing of ours is used any more; in reverse, because a
/// configuration must not name what is gone.
pub fn removal(settings: &Settings, found: &Observed) -> Plan {
    let mut plan = Plan::default();
    plan.remove_temporaries(found);
    let reason = "msm-cni leaves this node";
    match NetDir::new(settings, found) {
        Ok(directory) => {
            directory.leave(None, reason, &mut plan);
            plan.notes = directory.left_aside();
            plan.waiting.extend(directory.suspects());
            plan.is_in_flux = directory.is_in_flux();
        }
        Err(reason) => plan.wait(reason.to_owned()),
    }
    // As long as an entry may be left, so is what it needs.
    if !plan.waiting.is_empty() {
        return plan;
    }
    if !matches!(found.kubeconfig, FileState::Missing) {
        plan.remove(settings.kubeconfig(), reason);
    }
    for dir in &found.bin_dirs {
        for (name, state) in &dir.links {
            if *state == Drift::Right {
                plan.remove(dir.path.join(name), reason);
            }
        }
        if settings.executable_at_cleanup == ExecutableAtCleanup::Goes
            && dir.executable != Drift::Missing
        {
            plan.remove(dir.path.join(EXECUTABLE), reason);
        }
    }
    plan
}

impl Plan {
    fn sync(&mut self, found: &Observed) {
        for path in &found.unsynced {
            let path = path.clone();
            self.push_for(
                Cause::Renewal,
                Action::Sync { path },
                "what was changed in it has to last",
            );
        }
    }

    fn remove_temporaries(&mut self, found: &Observed) {
        for path in &found.temporaries {
            self.remove(path.clone(), "an interrupted run has left it");
        }
    }

    fn executables(&mut self, settings: &Settings, found: &Observed) {
        self.waiting.extend(found.bin_dir_trouble.clone());
        for dir in &found.bin_dirs {
            self.bin_dir(settings.replacement, dir);
        }
    }

    fn bin_dir(&mut self, replacement: Replacement, dir: &BinDir) {
        let reason = |state: &Drift| match (state, replacement) {
            (Drift::Missing, _) => Some("it was missing".to_owned()),
            (Drift::Wrong(why), Replacement::IfDifferent) => Some(why.clone()),
            (Drift::Wrong(_), Replacement::Never) | (Drift::Right, _) => None,
        };
        // Nobody would call it.
        if dir.links.is_empty() {
            return;
        }
        if let Some(reason) = reason(&dir.executable) {
            let path = dir.path.join(EXECUTABLE);
            let mode = EXECUTABLE_MODE;
            self.push(Action::CopyExecutable { path, mode }, reason);
        }
        for (name, state) in &dir.links {
            if let Some(reason) = reason(state) {
                let path = dir.path.join(name);
                let target = EXECUTABLE;
                self.push(Action::Link { path, target }, reason);
            }
        }
    }

    fn kubeconfig(&mut self, settings: &Settings, found: &Observed) {
        let (token, authority) = match (&found.token, &found.authority) {
            (Ok(token), Ok(authority)) => (token, authority),
            (token, authority) => {
                self.waiting.extend(token.clone().err());
                self.waiting.extend(authority.clone().err());
                return;
            }
        };
        let credentials = Credentials {
            server: &settings.api_server,
            ca_bundle: authority.as_deref(),
            token,
        };
        let content = kube::render_kubeconfig(&credentials, CNI_APPLET, KUBECONFIG_COMMENT);
        let mode = settings.kubeconfig_mode;
        let is_other = |snapshot: &FileSnapshot| snapshot.content != content.as_bytes();
        let (reason, cause) = match &found.kubeconfig {
            FileState::Present(snapshot) if is_other(snapshot) && found.is_renewed => (
                "token, authority or address have changed".to_owned(),
                Cause::Renewal,
            ),
            FileState::Present(snapshot) if is_other(snapshot) => {
                ("it was another one".to_owned(), Cause::Repair)
            }
            FileState::Present(_) if found.holder == Holder::Older => (
                "another installer was in charge, which was started earlier".to_owned(),
                Cause::Renewal,
            ),
            FileState::Present(snapshot) => match metadata_drift(snapshot, mode, found.own_uid) {
                Some(reason) => (reason, Cause::Repair),
                None => return,
            },
            FileState::Missing => ("it was missing".to_owned(), Cause::Repair),
            FileState::Unreadable(reason) => {
                (format!("it could not be read: {reason}"), Cause::Repair)
            }
        };
        let action = Action::Write {
            path: settings.kubeconfig(),
            content: content.into_bytes(),
            mode,
            owner: None,
            instead_of: None,
        };
        self.push_for(cause, action, reason);
    }
}

/// Whether executable and kubeconfig are there, or can be made.
fn can_work(found: &Observed) -> bool {
    let kubeconfig = matches!(found.kubeconfig, FileState::Present(_))
        || (found.token.is_ok() && found.authority.is_ok());
    found.bin_dir_trouble.is_none() && kubeconfig
}

/// Whether the template makes a plugin's configuration at all.
pub fn check_template(settings: &Settings) -> Result<(), template::Error> {
    let entry = template::render(&settings.template, &values(settings, Some("token")))?;
    let alone = NetworkConfig::parse(STAND_ALONE_FILE, entry.text.as_bytes());
    match (settings.placement, alone) {
        (Placement::StandAlone, Err(_)) => Err(template::Error::NoName),
        _ => Ok(()),
    }
}

fn values<'a>(settings: &'a Settings, token: Option<&'a str>) -> template::Values<'a> {
    template::Values {
        log_level: &settings.plugin_log_level,
        kubeconfig_name: &settings.kubeconfig_name,
        kubeconfig_path: &settings.kubeconfig_on_host,
        service_host: &settings.service_host,
        service_port: &settings.service_port,
        node_name: &settings.node_name,
        token,
    }
}

fn entry(settings: &Settings, found: &Observed) -> Result<Entry, String> {
    let values = values(settings, found.token.as_deref().ok());
    template::render(&settings.template, &values).map_err(|error| error_chain(&error))
}
