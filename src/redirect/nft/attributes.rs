//! Netlink attributes (length, type, value, padding): encoding, and bounds-checked decoding.
//! Pure. Format: `linux/netlink.h`.

/// Alignment of attributes and messages.
pub const ALIGN: usize = 4;
/// Length and type of an attribute.
const HEADER: usize = 4;
/// The two highest bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

/// Attributes to send. A length that does not fit is reported once, by `as_bytes`.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl Attributes {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let Ok(length) = u16::try_from(HEADER + value.len()) else {
            self.is_too_long = true;
            return;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        let padded = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(padded, 0);
    }

    /// A string with a terminating zero.
    pub fn string(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat());
    }

    /// A number in network byte order, which `nf_tables` uses for all numbers.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// The length of another attribute's value.
    pub fn length(&mut self, kind: u16, length: usize) {
        match u32::try_from(length) {
            Ok(length) => self.be32(kind, length),
            Err(_) => self.is_too_long = true,
        }
    }

    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.is_too_long |= inner.is_too_long;
        self.bytes(kind | NLA_F_NESTED, &inner.bytes);
    }

    /// `None` if a length did not fit.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        (!self.is_too_long).then_some(self.bytes.as_slice())
    }
}

/// An attribute of a reply.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    pub kind: u16,
    pub value: &'a [u8],
}

/// The attributes of `bytes`, in order; stops at the first malformed one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(HEADER..length)?;
        rest = rest
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
        Some(Attribute { kind, value })
    })
}

/// The value of the first attribute of that kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    find(bytes, kind).map(|attribute| attribute.value)
}

/// The first attribute of that kind, as a number.
pub fn be32_attribute(bytes: &[u8], kind: u16) -> Option<u32> {
    find(bytes, kind)?.be32()
}

/// The first attribute of that kind, as a string; `None` if it is not UTF-8.
pub fn string_attribute(bytes: &[u8], kind: u16) -> Option<&str> {
    find(bytes, kind)?.string()
}

fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).find(|attribute| attribute.kind == kind)
}

impl<'a> Attribute<'a> {
    pub fn be32(&self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn string(&self) -> Option<&'a str> {
        let text = self.value.split(|byte| *byte == 0).next()?;
        str::from_utf8(text).ok()
    }
}

pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|chunk| u16::from_ne_bytes(*chunk))
}

pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_decoded_as_encoded() {
        let mut attributes_sent = Attributes::default();
        attributes_sent.string(1, "msm_cni");
        attributes_sent.nest(4, |hook| {
            hook.be32(1, 3);
            hook.bytes(2, &[1, 2, 3]);
        });
        let bytes = attributes_sent.as_bytes().unwrap();
        assert_eq!(bytes.len() % ALIGN, 0);
        let decoded: Vec<Attribute> = attributes(bytes).collect();
        assert_eq!(decoded[0].string(), Some("msm_cni"));
        assert_eq!(decoded[1].kind, 4);
        assert_eq!(attribute(decoded[1].value, 2), Some(&[1, 2, 3][..]));
        assert_eq!(be32_attribute(decoded[1].value, 1), Some(3));
    }

    #[test]
    fn truncated_attribute_ends_the_list() {
        let mut two = Attributes::default();
        two.be32(1, 7);
        two.be32(2, 8);
        let bytes = two.as_bytes().unwrap();
        for length in 0..bytes.len() {
            let complete = length / 8;
            assert_eq!(
                attributes(&bytes[..length]).count(),
                complete,
                "{length} bytes"
            );
        }
        assert_eq!(
            attributes(&[3, 0, 1, 0]).count(),
            0,
            "shorter than its own header"
        );
    }

    #[test]
    fn length_that_does_not_fit_is_reported() {
        let longest = usize::from(u16::MAX) - HEADER;
        let nested = |length: usize| {
            let mut attributes = Attributes::default();
            attributes.nest(1, |nested| nested.bytes(1, &vec![0; length]));
            attributes
        };
        // The nested attribute has padding and its own header.
        assert!(nested(longest - 8).as_bytes().is_some());
        for length in [longest - 3, longest, longest + 1] {
            assert_eq!(nested(length).as_bytes(), None, "{length}");
        }
    }
}
