//! A netlink socket for `nf_tables`: sends messages and assigns replies to requests. Handles
//! the frame of a message, not its meaning.
//! Formats: `linux/netlink.h`, `linux/netfilter/nfnetlink.h`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::attributes::{ALIGN, Attributes, u16_at, u32_at};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version and resource.
const NFGEN_HEADER: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// Create the object. For `NEW…` messages, as the next two.
pub const NLM_F_CREATE: u16 = 0x400;
/// Fail with EEXIST if the object exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Append the object to its list.
pub const NLM_F_APPEND: u16 = 0x800;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
/// A read returns whole messages, of at most 8 KiB unless a larger buffer was used before.
const RECEIVE_BYTES: usize = 8 * 1024;
/// The kernel queues its reply before `send` returns. The timeout only prevents a kernel bug
/// from blocking a pod.
const RECEIVE_TIMEOUT_SECONDS: i64 = 5;

/// Why a request to `nf_tables` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("opening a netlink socket to nftables")]
    Socket { source: io::Error },
    #[error("sending {bytes} bytes to nftables")]
    Send { bytes: usize, source: io::Error },
    #[error("receiving the reply of nftables")]
    Receive { source: io::Error },
    #[error("the reply of nftables is truncated or malformed")]
    Malformed,
    #[error("the rules of nftables changed repeatedly while they were read")]
    Interrupted,
    #[error("a message to nftables is longer than netlink allows")]
    TooLong,
    /// `request` counts from 0; `None`: the batch as a whole.
    #[error("nftables refused the request")]
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

/// A message to `nf_tables`.
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

    fn write(&self, bytes: &mut Vec<u8>, sequence: u32, flags: u16) -> Result<(), Error> {
        let header = Header {
            kind: u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, self.kind]),
            flags: self.flags | flags,
            sequence,
            family: self.family,
            resource: 0,
        };
        header.write(bytes, self.attributes.as_bytes().ok_or(Error::TooLong)?)
    }
}

/// A table, chain or rule in a reply.
#[derive(Debug)]
pub struct Object {
    pub family: u8,
    pub attributes: Vec<u8>,
}

/// A socket to `nf_tables` in the calling thread's network namespace.
pub struct Socket(OwnedFd);

impl Socket {
    pub fn open() -> Result<Self, Error> {
        let error = |errno: Errno| Error::Socket {
            source: errno.into(),
        };
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .map_err(error)?;
        let timeout = TimeVal::seconds(RECEIVE_TIMEOUT_SECONDS);
        setsockopt(&fd, ReceiveTimeout, &timeout).map_err(error)?;
        Ok(Self(fd))
    }

    /// Sends all messages as one transaction: the kernel applies all of them or none.
    pub fn transact(&self, messages: &[Message]) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let last = u32::try_from(messages.len()).map_err(|_| Error::TooLong)?;
        let end = last.checked_add(1).ok_or(Error::TooLong)?;
        let mut batch = Vec::with_capacity(4096);
        Header::mark(NFNL_MSG_BATCH_BEGIN, 0).write(&mut batch, &[])?;
        for (sequence, message) in (1..=last).zip(messages) {
            // Kernels before 6.10 never acknowledge the end of a batch, so its last message
            // requests the acknowledgement.
            let flags = if sequence == last { NLM_F_ACK } else { 0 };
            message.write(&mut batch, sequence, flags)?;
        }
        Header::mark(NFNL_MSG_BATCH_END, end).write(&mut batch, &[])?;
        self.send(&batch)?;
        self.outcome(last)
    }

    /// Reads until the message with the sequence number `last` is answered. After a refusal
    /// the kernel continues with the next message and discards the batch at its end, so the
    /// first refusal is the cause.
    fn outcome(&self, last: u32) -> Result<(), Error> {
        let mut refusal = None;
        let mut flags = MsgFlags::empty();
        let mut buffer = [0; RECEIVE_BYTES];
        loop {
            let replies = match self.receive(&mut buffer, flags) {
                Ok(replies) => replies,
                Err(error) => match (error.receive_errno(), refusal.take()) {
                    // The kernel dropped refusals that did not fit the socket's buffer. The
                    // queued ones are read to the end, so that none of them is taken for a
                    // reply to the next batch.
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
                let Reply::Status { sequence, errno } = reply? else {
                    continue;
                };
                if let Some(source) = errno {
                    // 0 is the beginning of the batch.
                    let index = sequence.checked_sub(1);
                    let request = index.and_then(|index| usize::try_from(index).ok());
                    refusal.get_or_insert(Error::Refused { request, source });
                }
                if sequence == 0 || sequence == last {
                    return refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Requests one object; `None` if it does not exist.
    pub fn get(&self, message: &Message) -> Result<Option<Object>, Error> {
        match self.request(message, 0) {
            Ok(mut objects) => Ok(objects.pop()),
            Err(Error::Refused {
                source: Errno::ENOENT,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Requests all objects of a kind. Repeats the request if they change while they are read.
    pub fn list(&self, message: &Message) -> Result<Vec<Object>, Error> {
        for _ in 0..8 {
            match self.request(message, NLM_F_DUMP) {
                Err(Error::Interrupted) => {}
                outcome => return outcome,
            }
        }
        Err(Error::Interrupted)
    }

    fn request(&self, message: &Message, flags: u16) -> Result<Vec<Object>, Error> {
        let mut request = Vec::with_capacity(128);
        message.write(&mut request, 1, flags)?;
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
        let sent =
            send(self.0.as_raw_fd(), bytes, MsgFlags::empty()).map_err(|errno| Error::Send {
                bytes: bytes.len(),
                source: errno.into(),
            })?;
        if sent == bytes.len() {
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

/// A message from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    Object {
        family: u8,
        attributes: &'a [u8],
        interrupted: bool,
    },
    /// An acknowledgement, a refusal or the end of a listing.
    Status { sequence: u32, errno: Option<Errno> },
}

/// The messages of `bytes`; stops at the first malformed one.
pub fn replies(bytes: &[u8]) -> impl Iterator<Item = Result<Reply<'_>, Error>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let reply = split_reply(rest).ok_or(Error::Malformed);
        rest = reply.as_ref().map_or(&[][..], |(_, remaining)| remaining);
        Some(reply.map(|(reply, _)| reply))
    })
}

fn split_reply(bytes: &[u8]) -> Option<(Reply<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let flags = u16_at(bytes, 6)?;
    let sequence = u32_at(bytes, 8)?;
    let payload = bytes.get(HEADER..length)?;
    let remaining = bytes
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
            attributes: payload.get(NFGEN_HEADER..)?,
            interrupted: flags & NLM_F_DUMP_INTR != 0,
        },
    };
    Some((reply, remaining))
}

#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u16,
    flags: u16,
    /// 0 for the beginning of a batch.
    sequence: u32,
    family: u8,
    resource: u8,
}

impl Header {
    /// The beginning or end of a batch.
    const fn mark(kind: u16, sequence: u32) -> Self {
        Self {
            kind,
            flags: 0,
            sequence,
            family: 0,
            resource: NFNL_SUBSYS_NFTABLES,
        }
    }

    fn write(self, bytes: &mut Vec<u8>, attributes: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(HEADER + NFGEN_HEADER + attributes.len());
        let length = length.map_err(|_| Error::TooLong)?;
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&(self.flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&[self.family, 0]);
        bytes.extend_from_slice(&u16::from(self.resource).to_be_bytes());
        bytes.extend_from_slice(attributes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_that_is_too_long_is_an_error() {
        let message =
            Message::new(0, 2, 0).with(|attributes| attributes.bytes(1, &vec![0; 65_536]));
        let error = message.write(&mut Vec::new(), 1, 0).unwrap_err();
        assert!(matches!(error, Error::TooLong), "{error:?}");
    }

    #[test]
    fn truncated_reply_is_an_error() {
        let mut frame = Vec::new();
        Message::new(0, 2, 0)
            .with(|table| table.string(1, "t"))
            .write(&mut frame, 5, 0)
            .unwrap();
        for length in 1..frame.len() {
            let decoded: Vec<_> = replies(&frame[..length]).collect();
            assert!(
                matches!(decoded.as_slice(), [Err(Error::Malformed)]),
                "{length} bytes: {decoded:?}"
            );
        }
        assert_eq!(replies(&frame).count(), 1);
    }
}
