//! The runtime's configuration directory as a value: which file the runtime would load without
//! msm-cni, and which lists msm-cni made. `insert` and `remove` plan changes of it such that
//! the runtime finds the same network at every step. Pure.
//!
//! A `.conf` or `.json` holds one plugin only. msm-cni converts it to a list of the same stem,
//! records the origin in the list (`"msm-cni": {"from": "10-x.conf"}`), and renames the file
//! to its backup, `10-x.conf.msm-cni-original`. The rules for `10-x.conf` and its list:
//!
//! | The list | Backup | `10-x.conf` | Insertion | Removal |
//! |---|---|---|---|---|
//! | does not exist | | exists | convert, back up | |
//! | equals the converted backup | yes | | update the entry and the record | restore the backup, then remove the list |
//! | equals the converted backup | yes | exists: rewritten by its owner | convert, back up | remove the list and the backup |
//! | records `10-x.conf`, unedited | | exists: conversion or removal was interrupted | convert, back up | remove the list |
//! | edited by another component, contains the plugin | or a record | exists: rewritten by its owner | update the entry, back up | take out entry and record |
//! | edited by another component | or a record | | update the entry | take out entry and record; the backup remains |
//! | any other | | exists | wait for a decision | take out the entry |
//!
//! Release 0.1.0 recorded no origin; see `unrecorded_origin`.

pub mod conflist;
mod error;
mod insert;
mod model;
mod plugin;
mod remove;
mod stand_alone;
pub mod template;
#[cfg(test)]
mod tests;

pub use insert::insert;
pub use model::NetDir;
pub use remove::{may_change, orphaned_backups, remove, unreadable_mentions};
pub use stand_alone::insert_stand_alone;
