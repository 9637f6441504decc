//! Checks of what must hold for any input, for unit tests and for the fuzz targets. Not part
//! of the executable.

pub mod fuzzing;
#[cfg(test)]
pub mod properties;
#[cfg(test)]
mod rule_sets;
