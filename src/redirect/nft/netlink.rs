//! A small netlink socket for `nf_tables`: write messages and attributes, send them, match
//! replies to requests. Knows the frame of a message, not what is in it.
//! Formats: `linux/netlink.h`, `linux/netfilter/nfnetlink.h`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

const HEADER: usize = 16;
const ALIGN: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// Create, for a `NEW…` message.
pub const NLM_F_CREATE: u16 = 0x400;
/// Refuse with EEXIST what exists, for a `NEW…` message.
pub const NLM_F_EXCL: u16 = 0x200;
/// Add at the end of the list, for a `NEW…` message.
pub const NLM_F_APPEND: u16 = 0x800;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
/// The highest two bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;
/// One read takes whole messages; the kernel makes none larger than 8 KiB unless asked.
const RECEIVE_BYTES: usize = 8 * 1024;
/// The kernel answers before `send` returns; this only keeps a bug from hanging a pod.
const RECEIVE_TIMEOUT_SECONDS: i64 = 5;

/// Why the kernel's `nf_tables` could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("opening a netlink socket to nf_tables")]
    Socket { source: io::Error },
    #[error("sending {bytes} bytes to nf_tables")]
    Send { bytes: usize, source: io::Error },
    #[error("reading nf_tables' answer")]
    Receive { source: io::Error },
    #[error("nf_tables' answer is cut short or malformed")]
    Malformed,
    #[error("nf_tables' listing kept changing while it was read")]
    Interrupted,
    /// `request` counts from 0; `None`: the batch as a whole.
    #[error("nf_tables refused")]
    Refused {
        request: Option<usize>,
        source: Errno,
    },
}

impl Error {
    fn receive_errno(&self) -> Option<Errno> {
        match self {
            Self::Receive { source } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }
}

/// A message to `nf_tables`, growing attribute by attribute.
#[derive(Debug, Clone)]
pub struct Message {
    kind: u8,
    flags: u16,
    family: u8,
    attributes: Attributes,
}

impl Message {
    pub fn new(kind: u8, family: u8, flags: u16) -> Self {
        Self {
            kind,
            flags,
            family,
            attributes: Attributes::default(),
        }
    }

    pub fn with(mut self, write: impl FnOnce(&mut Attributes)) -> Self {
        write(&mut self.attributes);
        self
    }

    fn frame(&self, frame: &mut Vec<u8>, sequence: u32, flags: u16) {
        let kind = u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, self.kind]);
        push_frame(
            frame,
            Header {
                kind,
                flags: self.flags | flags,
                sequence,
            },
            self.family,
            0,
            &self.attributes.0,
        );
    }
}

/// Attributes being written: length, type, value, padding.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
    }

    /// A string, with the zero that the kernel wants.
    pub fn string(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat());
    }

    /// A number in network order, as `nf_tables` has all of its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(kind | NLA_F_NESTED, &inner.0);
    }

    #[cfg(any(test, fuzzing))]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Attributes being read. A length that does not fit ends the list.
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
        let value = rest.get(4..length)?;
        rest = rest
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
        Some(Attribute { kind, value })
    })
}

/// The value of the first attribute of that kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|attribute| attribute.kind == kind)
        .map(|attribute| attribute.value)
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

/// Something that the kernel holds, as it lists it.
#[derive(Debug)]
pub struct Object {
    pub family: u8,
    pub attributes: Vec<u8>,
}

/// A socket to the `nf_tables` of the calling thread's network namespace.
pub struct Socket(OwnedFd);

impl Socket {
    pub fn open() -> Result<Self, Error> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .map_err(|errno| Error::Socket {
            source: errno.into(),
        })?;
        setsockopt(
            &fd,
            ReceiveTimeout,
            &TimeVal::seconds(RECEIVE_TIMEOUT_SECONDS),
        )
        .map_err(|errno| Error::Socket {
            source: errno.into(),
        })?;
        Ok(Self(fd))
    }

    /// Sends all messages as one transaction: the kernel takes all or nothing.
    pub fn transact(&self, messages: &[Message]) -> Result<(), Error> {
        let Some(last) = messages.len().checked_sub(1) else {
            return Ok(());
        };
        let mut batch = Vec::with_capacity(4096);
        push_mark(&mut batch, NFNL_MSG_BATCH_BEGIN, 0);
        for (index, message) in messages.iter().enumerate() {
            // Kernels before 6.10 never acknowledge a batch's end, so its last message
            // asks for the acknowledgement.
            let flags = if index == last { NLM_F_ACK } else { 0 };
            message.frame(&mut batch, sequence(index), flags);
        }
        push_mark(&mut batch, NFNL_MSG_BATCH_END, sequence(last + 1));
        self.send(&batch)?;
        self.outcome(last)
    }

    /// Reads until the last message is answered. The kernel goes on after a message that
    /// it refuses and drops the whole batch at the end, so the first refusal counts.
    fn outcome(&self, last: usize) -> Result<(), Error> {
        let mut refusal = None;
        let mut flags = MsgFlags::empty();
        let mut buffer = [0; RECEIVE_BYTES];
        loop {
            let replies = match self.receive(&mut buffer, flags) {
                Ok(replies) => replies,
                Err(error) => match (error.receive_errno(), refusal.take()) {
                    // So many refusals that the last ones were dropped. The first ones are
                    // there; they are read to the end, so that the next batch's follow.
                    (Some(Errno::ENOBUFS), first) => {
                        flags = MsgFlags::MSG_DONTWAIT;
                        refusal = first;
                        continue;
                    }
                    (Some(Errno::EAGAIN), Some(first)) => return Err(first),
                    _ => return Err(error),
                },
            };
            for reply in replies {
                let Reply::Status {
                    sequence: answered,
                    errno,
                } = reply?
                else {
                    continue;
                };
                let request = usize::try_from(answered)
                    .ok()
                    .and_then(|number| number.checked_sub(1));
                if let Some(source) = errno {
                    refusal.get_or_insert(Error::Refused { request, source });
                }
                if request.is_none_or(|request| request == last) {
                    return refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends a question about one object and returns the answer's attributes; `None` when
    /// the kernel says that there is no such object.
    pub fn get(&self, message: &Message) -> Result<Option<Vec<u8>>, Error> {
        match self.ask(message, 0) {
            Ok(mut answers) => Ok(answers.pop().map(|object| object.attributes)),
            Err(Error::Refused {
                source: Errno::ENOENT,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a question about all objects of a kind.
    pub fn list(&self, message: &Message) -> Result<Vec<Object>, Error> {
        for _ in 0..8 {
            match self.ask(message, NLM_F_DUMP) {
                Err(Error::Interrupted) => {}
                answer => return answer,
            }
        }
        Err(Error::Interrupted)
    }

    fn ask(&self, message: &Message, flags: u16) -> Result<Vec<Object>, Error> {
        let mut request = Vec::with_capacity(128);
        message.frame(&mut request, sequence(0), flags);
        self.send(&request)?;
        let mut objects = Vec::new();
        let mut interrupted = false;
        let mut buffer = [0; RECEIVE_BYTES];
        loop {
            for reply in self.receive(&mut buffer, MsgFlags::empty())? {
                match reply? {
                    Reply::Object {
                        family,
                        attributes,
                        interrupted: changed,
                    } => {
                        interrupted |= changed;
                        objects.push(Object {
                            family,
                            attributes: attributes.to_vec(),
                        });
                        if flags == 0 {
                            return Ok(objects);
                        }
                    }
                    Reply::Status {
                        errno: Some(source),
                        ..
                    } => {
                        return Err(Error::Refused {
                            request: Some(0),
                            source,
                        });
                    }
                    Reply::Status { errno: None, .. } if interrupted => {
                        return Err(Error::Interrupted);
                    }
                    Reply::Status { errno: None, .. } => return Ok(objects),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let bytes_sent =
            send(self.0.as_raw_fd(), bytes, MsgFlags::empty()).map_err(|errno| Error::Send {
                bytes: bytes.len(),
                source: errno.into(),
            })?;
        if bytes_sent == bytes.len() {
            Ok(())
        } else {
            Err(Error::Malformed)
        }
    }

    fn receive<'a>(
        &self,
        buffer: &'a mut [u8],
        flags: MsgFlags,
    ) -> Result<impl Iterator<Item = Result<Reply<'a>, Error>> + use<'a>, Error> {
        let length = loop {
            match recv(self.0.as_raw_fd(), buffer, flags) {
                Err(Errno::EINTR) => {}
                Ok(0) => return Err(Error::Malformed),
                Ok(length) => break length,
                Err(errno) => {
                    return Err(Error::Receive {
                        source: errno.into(),
                    });
                }
            }
        };
        Ok(replies(buffer.get(..length).unwrap_or_default()))
    }
}

/// One message from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    Object {
        family: u8,
        attributes: &'a [u8],
        interrupted: bool,
    },
    /// An acknowledgement, a refusal, or the end of a listing.
    Status { sequence: u32, errno: Option<Errno> },
}

pub fn replies(bytes: &[u8]) -> impl Iterator<Item = Result<Reply<'_>, Error>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let reply = split_reply(rest).ok_or(Error::Malformed);
        rest = reply.as_ref().map_or(&[][..], |(_, behind)| behind);
        Some(reply.map(|(reply, _)| reply))
    })
}

fn split_reply(bytes: &[u8]) -> Option<(Reply<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let flags = u16_at(bytes, 6)?;
    let sequence = u32_at(bytes, 8)?;
    let payload = bytes.get(HEADER..length)?;
    let behind = bytes
        .get(length.next_multiple_of(ALIGN)..)
        .unwrap_or_default();
    let reply = match kind {
        NLMSG_ERROR | NLMSG_DONE => {
            let code = payload
                .first_chunk::<4>()
                .map_or(0, |code| i32::from_ne_bytes(*code));
            let errno = (code != 0).then(|| Errno::from_raw(code.wrapping_neg()));
            Reply::Status { sequence, errno }
        }
        _ => Reply::Object {
            family: *payload.first()?,
            attributes: payload.get(4..)?,
            interrupted: flags & NLM_F_DUMP_INTR != 0,
        },
    };
    Some((reply, behind))
}

#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// 0 is the batch's beginning.
fn sequence(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

fn push_mark(frame: &mut Vec<u8>, kind: u16, sequence: u32) {
    push_frame(
        frame,
        Header {
            kind,
            flags: 0,
            sequence,
        },
        0,
        NFNL_SUBSYS_NFTABLES,
        &[],
    );
}

fn push_frame(frame: &mut Vec<u8>, header: Header, family: u8, resource: u8, attributes: &[u8]) {
    let length = u32::try_from(HEADER + 4 + attributes.len()).unwrap_or(u32::MAX);
    frame.extend_from_slice(&length.to_ne_bytes());
    frame.extend_from_slice(&header.kind.to_ne_bytes());
    frame.extend_from_slice(&(header.flags | NLM_F_REQUEST).to_ne_bytes());
    frame.extend_from_slice(&header.sequence.to_ne_bytes());
    frame.extend_from_slice(&0u32.to_ne_bytes());
    frame.extend_from_slice(&[family, 0]);
    frame.extend_from_slice(&u16::from(resource).to_be_bytes());
    frame.extend_from_slice(attributes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_they_were_written() {
        let mut written = Attributes::default();
        written.string(1, "msm_cni");
        written.nest(4, |hook| {
            hook.be32(1, 3);
            hook.bytes(2, &[1, 2, 3]);
        });
        let bytes = written.into_bytes();
        assert_eq!(bytes.len() % ALIGN, 0);
        let read: Vec<Attribute> = attributes(&bytes).collect();
        assert_eq!(read[0].string(), Some("msm_cni"));
        assert_eq!(read[1].kind, 4);
        assert_eq!(attribute(read[1].value, 2), Some(&[1, 2, 3][..]));
        assert_eq!(
            attributes(read[1].value)
                .next()
                .and_then(|hook| hook.be32()),
            Some(3)
        );
    }

    #[test]
    fn an_attribute_cut_short_ends_the_list() {
        let mut written = Attributes::default();
        written.be32(1, 7);
        written.be32(2, 8);
        let bytes = written.into_bytes();
        for length in 0..bytes.len() {
            let whole = length / 8;
            assert_eq!(
                attributes(&bytes[..length]).count(),
                whole,
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
    fn a_reply_cut_short_is_an_error_and_no_panic() {
        let mut frame = Vec::new();
        Message::new(0, 2, 0)
            .with(|table| table.string(1, "t"))
            .frame(&mut frame, 5, 0);
        for length in 1..frame.len() {
            let read: Vec<_> = replies(&frame[..length]).collect();
            assert!(
                matches!(read.as_slice(), [Err(Error::Malformed)]),
                "{length} bytes: {read:?}"
            );
        }
        assert_eq!(replies(&frame).count(), 1);
    }
}
