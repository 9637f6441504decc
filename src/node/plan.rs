//! Plans the steps from the observed to the desired state, as plain values. The order is such
//! that the network configuration never names a plugin that is missing or cannot work. Pure.

use super::lock::Holder;
use super::netdir::conflist::NetworkConfig;
use super::netdir::template::{self, Entry};
use super::netdir::{self, NetDir};
use super::observe::{BinDir, Drift, EXECUTABLE_MODE, FileSnapshot, FileState, Observed};
use super::settings::Settings;
use super::step::{Action, Cause, Plan, metadata_drift};
use super::values::{BinaryCleanup, Placement, Replacement};
use crate::kube::{self, Credentials};
use crate::names::{CNI_APPLET, EXECUTABLE, STAND_ALONE_FILE};
use crate::text::error_chain;

const KUBECONFIG_COMMENT: &str = "Managed by the installer of msm-cni: changes are overwritten.";

/// Installs what is missing and repairs what differs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InstallPlan {
    pub plan: Plan,
    /// The number of steps, from the first, that only depend on earlier steps in the same
    /// directory. The others depend on all steps before them.
    pub independent: usize,
}

/// Removes the installation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RemovalPlan {
    pub plan: Plan,
    /// Remarks for the administrator; they block no step.
    pub notes: Vec<String>,
    /// Whether a file may soon become a network configuration with a plugin entry, because
    /// another process is writing it.
    pub may_change: bool,
}

pub fn install(settings: &Settings, observed: &Observed) -> InstallPlan {
    let mut plan = Plan::default();
    sync(&mut plan, observed);
    if observed.holder == Holder::Newer {
        plan.wait(format!(
            "an installer that started later owns this node (it locked {}); this one is on standby",
            settings.kubeconfig().display()
        ));
        return InstallPlan {
            plan,
            independent: 0,
        };
    }
    remove_temporaries(&mut plan, observed);
    install_executables(&mut plan, settings, observed);
    install_kubeconfig(&mut plan, settings, observed);
    let independent = plan.steps.len();
    match (entry(settings, observed), NetDir::new(settings, observed)) {
        (Err(reason), _) => plan.wait(reason),
        (_, Err(reason)) => plan.wait(reason.to_owned()),
        // With an entry whose plugin cannot work, pods would fail to start.
        (Ok(entry), Ok(directory)) if plugin_can_work(observed) => match settings.placement {
            Placement::Chained => netdir::insert(&directory, &entry, &mut plan),
            Placement::StandAlone => netdir::insert_stand_alone(&directory, &entry, &mut plan),
        },
        _ => {}
    }
    InstallPlan { plan, independent }
}

/// The reverse order of `install`: the network configuration must not name a missing plugin.
pub fn remove(settings: &Settings, observed: &Observed) -> RemovalPlan {
    let mut removal = RemovalPlan::default();
    let plan = &mut removal.plan;
    let reason = "uninstalling";
    remove_temporaries(plan, observed);
    match NetDir::new(settings, observed) {
        Ok(directory) => {
            plan.steps.extend(netdir::remove(&directory, None, reason));
            plan.waiting.extend(netdir::unreadable_mentions(&directory));
            removal.notes = netdir::orphaned_backups(&directory);
            removal.may_change = netdir::may_change(&directory);
        }
        Err(reason) => plan.wait(reason.to_owned()),
    }
    // A remaining entry needs the kubeconfig and the executables.
    if !plan.waiting.is_empty() {
        return removal;
    }
    if !matches!(observed.kubeconfig, FileState::Missing) {
        plan.remove(settings.kubeconfig(), reason);
    }
    if settings.binary_cleanup == BinaryCleanup::Remove {
        remove_executables(plan, observed, reason);
    }
    removal
}

fn remove_executables(plan: &mut Plan, observed: &Observed, reason: &str) {
    for dir in &observed.bin_dirs {
        for (name, drift) in &dir.links {
            if *drift == Drift::None {
                plan.remove(dir.path.join(name), reason);
            }
        }
        if dir.executable != Drift::Missing {
            plan.remove(dir.path.join(EXECUTABLE), reason);
        }
    }
}

/// Checks that the template renders to a plugin configuration.
pub fn check_template(settings: &Settings) -> Result<(), template::Error> {
    let entry = template::render(
        &settings.template,
        &template_values(settings, Some("token")),
    )?;
    let alone = NetworkConfig::parse(STAND_ALONE_FILE, entry.text.as_bytes());
    match (settings.placement, alone) {
        (Placement::StandAlone, Err(_)) => Err(template::Error::NoName),
        _ => Ok(()),
    }
}

fn sync(plan: &mut Plan, observed: &Observed) {
    for path in &observed.unsynced {
        let path = path.clone();
        plan.push_for(
            Cause::Renewal,
            Action::Sync { path },
            "its changes were not fsynced yet",
        );
    }
}

fn remove_temporaries(plan: &mut Plan, observed: &Observed) {
    for path in &observed.temporaries {
        plan.remove(path.clone(), "an interrupted run left it");
    }
}

fn install_executables(plan: &mut Plan, settings: &Settings, observed: &Observed) {
    plan.waiting.extend(observed.bin_dir_error.clone());
    // Without a link, nothing calls the executable.
    if settings.links.is_empty() {
        return;
    }
    for dir in &observed.bin_dirs {
        install_bin_dir(plan, settings.replacement, dir);
    }
}

fn install_bin_dir(plan: &mut Plan, replacement: Replacement, dir: &BinDir) {
    let reason = |drift: &Drift| match (drift, replacement) {
        (Drift::Missing, _) => Some("it was missing".to_owned()),
        (Drift::Wrong(why), Replacement::IfDifferent) => Some(why.clone()),
        (Drift::Wrong(_), Replacement::Never) | (Drift::None, _) => None,
    };
    if let Some(reason) = reason(&dir.executable) {
        let path = dir.path.join(EXECUTABLE);
        let mode = EXECUTABLE_MODE;
        plan.push(Action::CopyExecutable { path, mode }, reason);
    }
    for (name, drift) in &dir.links {
        if let Some(reason) = reason(drift) {
            let path = dir.path.join(name);
            let target = EXECUTABLE;
            plan.push(Action::Link { path, target }, reason);
        }
    }
}

fn install_kubeconfig(plan: &mut Plan, settings: &Settings, observed: &Observed) {
    let (token, ca_bundle) = match (&observed.token, &observed.ca_bundle) {
        (Ok(token), Ok(ca_bundle)) => (token, ca_bundle),
        (token, ca_bundle) => {
            plan.waiting.extend(token.clone().err());
            plan.waiting.extend(ca_bundle.clone().err());
            return;
        }
    };
    let credentials = Credentials {
        server: &settings.api_server,
        ca_bundle: ca_bundle.as_deref(),
        token,
    };
    let content = kube::render_kubeconfig(&credentials, CNI_APPLET, KUBECONFIG_COMMENT);
    let Some((cause, reason)) = kubeconfig_drift(settings, observed, content.as_bytes()) else {
        return;
    };
    let action = Action::Write {
        path: settings.kubeconfig(),
        content: content.into_bytes(),
        mode: settings.kubeconfig_mode,
        owner: None,
        instead_of: None,
    };
    plan.push_for(cause, action, reason);
}

fn kubeconfig_drift(
    settings: &Settings,
    observed: &Observed,
    desired: &[u8],
) -> Option<(Cause, String)> {
    let differs = |snapshot: &FileSnapshot| snapshot.content != desired;
    match &observed.kubeconfig {
        FileState::Present(snapshot) if differs(snapshot) && observed.is_renewed => Some((
            Cause::Renewal,
            "token, CA bundle or API server address changed".into(),
        )),
        FileState::Present(snapshot) if differs(snapshot) => {
            Some((Cause::Repair, "its content was different".into()))
        }
        FileState::Present(_) if observed.holder == Holder::Older => Some((
            Cause::Renewal,
            "taking over from an installer that started earlier".into(),
        )),
        FileState::Present(snapshot) => {
            metadata_drift(snapshot, settings.kubeconfig_mode, observed.own_uid)
                .map(|reason| (Cause::Repair, reason))
        }
        FileState::Missing => Some((Cause::Repair, "it was missing".into())),
        FileState::Unreadable(reason) => {
            Some((Cause::Repair, format!("it was unreadable: {reason}")))
        }
    }
}

/// Whether executable and kubeconfig exist or can be written.
fn plugin_can_work(observed: &Observed) -> bool {
    let kubeconfig = matches!(observed.kubeconfig, FileState::Present(_))
        || (observed.token.is_ok() && observed.ca_bundle.is_ok());
    observed.bin_dir_error.is_none() && kubeconfig
}

fn template_values<'a>(settings: &'a Settings, token: Option<&'a str>) -> template::Values<'a> {
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

fn entry(settings: &Settings, observed: &Observed) -> Result<Entry, String> {
    let values = template_values(settings, observed.token.as_deref().ok());
    template::render(&settings.template, &values)
        .map_err(|error| format!("cannot render the plugin entry: {}", error_chain(&error)))
}
