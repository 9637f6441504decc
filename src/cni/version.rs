//! The supported versions of the CNI specification. A version must match exactly; a result can
//! be passed on only to a version with the same result format. Pure.

/// A supported version; an index into `VERSIONS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(usize);

/// In ascending order, each with the number of its result format.
const VERSIONS: [(&str, u8); 7] = [
    ("0.1.0", 0),
    ("0.2.0", 0),
    ("0.3.0", 1),
    ("0.3.1", 1),
    ("0.4.0", 1),
    ("1.0.0", 2),
    ("1.1.0", 2),
];

impl Version {
    pub const FIRST: Self = Self(0);
    /// The first version with plugin chaining.
    pub const WITH_CHAINING: Self = Self(2);
    pub const WITH_CHECK: Self = Self(4);
    /// The first version without the field `version` in the addresses of a result.
    pub const V1: Self = Self(5);
    pub const WITH_GC_AND_STATUS: Self = Self(6);
    pub const LATEST: Self = Self(6);

    pub fn parse(text: &str) -> Option<Self> {
        VERSIONS
            .iter()
            .position(|(name, _)| *name == text)
            .map(Self)
    }

    pub fn name(self) -> &'static str {
        VERSIONS.get(self.0).map_or("", |(name, _)| name)
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        VERSIONS.iter().map(|(name, _)| *name)
    }

    pub fn list() -> String {
        Self::names().collect::<Vec<_>>().join(", ")
    }

    /// Whether results of both versions differ in nothing but `cniVersion`.
    pub fn same_result_format(self, other: Self) -> bool {
        let format = |version: Self| VERSIONS.get(version.0).map(|(_, format)| *format);
        format(self) == format(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_versions_are_those_of_the_specification() {
        for (version, name) in [
            (Version::FIRST, "0.1.0"),
            (Version::WITH_CHAINING, "0.3.0"),
            (Version::WITH_CHECK, "0.4.0"),
            (Version::V1, "1.0.0"),
            (Version::WITH_GC_AND_STATUS, "1.1.0"),
            (Version::LATEST, "1.1.0"),
        ] {
            assert_eq!(version.name(), name);
            assert_eq!(Version::parse(name), Some(version));
        }
        for text in [
            "", "1", "1.0", "1.0.0 ", "v1.0.0", "1.0.1", "0.5.0", "2.0.0",
        ] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }
}
