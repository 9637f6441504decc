//! Plans a separate file for the plugin entry, for meta plugins that read it from there. Pure.

use super::conflist::{Single, is_list};
use super::model::{NetDir, mode_for};
use super::remove::remove;
use super::template::Entry;
use crate::json;
use crate::names::STAND_ALONE_FILE;
use crate::node::step::{Action, Plan, metadata_drift};

const MODE: u32 = 0o644;

/// Writes the file, and takes the entry out of every other one.
pub fn insert_stand_alone(dir: &NetDir, entry: &Entry, plan: &mut Plan) {
    let conf_name = dir.settings.conf_name.as_deref();
    let name = conf_name.unwrap_or(STAND_ALONE_FILE);
    let path = dir.path(name);
    let existing = dir.all.iter().find(|file| file.name == name);
    let is_ours = match dir.find(name) {
        Some(loaded) => loaded.config.is_our_own(),
        // No other component writes a file of the default name.
        None => existing.is_none() || conf_name.is_none(),
    };
    if !is_ours {
        plan.wait(format!(
            "{} belongs to another component; choose another --cni-conf-name",
            path.display()
        ));
        return;
    }
    let content = content(name, &entry.text);
    let mode = mode_for(entry.secrecy, MODE);
    let reason = match existing.map(|file| &file.snapshot) {
        None => Some("it was missing".to_owned()),
        Some(Err(_)) => Some("it could not be read".to_owned()),
        Some(Ok(snapshot)) if !json::same(&snapshot.text(), &content) => {
            Some("its content was different".to_owned())
        }
        Some(Ok(snapshot)) => metadata_drift(snapshot, mode, dir.own_uid),
    };
    if let Some(reason) = reason {
        let snapshot = existing.and_then(|file| file.snapshot.as_ref().ok());
        let action = Action::Write {
            path: path.clone(),
            content: content.into_bytes(),
            mode,
            owner: None,
            instead_of: snapshot.map(|snapshot| snapshot.content.clone()),
        };
        plan.push_for(dir.cause(entry.secrecy), action, reason);
    }
    let reason = "the plugin entry is in a separate file now";
    plan.steps.extend(remove(dir, Some(&path), reason));
}

/// The entry as the content of the file `name`: a list if the file is one.
fn content(name: &str, entry: &str) -> String {
    match Single::parse(entry.as_bytes()) {
        Ok(single) if is_list(name) => single.to_list(),
        _ => format!("{entry}\n"),
    }
}
