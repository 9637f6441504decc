//! Checks that must hold for any input, shared by unit tests and the fuzz targets in fuzz/.
//! Not part of the executable.

#[cfg(test)]
mod docs;
pub mod fuzzing;
mod members;
mod plugin;
#[cfg(test)]
pub mod properties;
#[cfg(test)]
mod rule_sets;
