//! Fetches the pod: decides what is asked, what is tried again, with which pauses, and
//! when to stop. One deadline holds for everything.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::kube::Pod;
use crate::kube::PodRef;
use crate::kube::Server;
use crate::kube::client::Client;
use crate::kube::config::client_config::{ClientConfig, ConfigError};
use crate::kube::error::{Attempts, Error, Failure, Retry};
use crate::text::error_chain;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// With less time left, asking again would only bring a timeout.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(50);

/// What to ask, of whom, and how long.
pub struct Lookup<'a> {
    /// The kubeconfig's path; read again when the API server answers 401.
    pub kubeconfig: &'a Path,
    /// Overrides the kubeconfig's server (`kubernetesAPIRoot`).
    pub server: Option<&'a Server>,
    /// The pod.
    pub pod: &'a PodRef,
    /// One deadline for everything.
    pub timeout: Duration,
}

/// Whether a kubeconfig is complete, without asking anybody.
pub fn check_config(kubeconfig: &Path, server: Option<&Server>) -> Result<(), Error> {
    let session = ClientConfig::read(kubeconfig, server).and_then(|access| Client::new(&access));
    session.map(drop).map_err(|source| Error::Kubeconfig {
        path: kubeconfig.to_owned(),
        source,
    })
}

/// Fetches the pod. Blocks for `timeout` at most.
pub fn fetch_pod(lookup: &Lookup) -> Result<Pod, Error> {
    let mut client = PodLookup::new(lookup)?;
    loop {
        let failure = match client.attempt() {
            Ok(pod) => {
                log::debug!("{}: the pod with the UID {}", client.tried(), pod.uid);
                return Ok(pod);
            }
            Err(failure) => failure,
        };
        log::debug!("{}: {}", client.tried(), error_chain(&failure));
        if let Err(failure) = client.recover(failure)? {
            return Err(failure.after(client.tried()));
        }
    }
}

/// Where the pod is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The API server's cache (`resourceVersion=0`): no load on etcd, but it may be late.
    Cache,
    /// etcd.
    Storage,
}

struct PodLookup<'a> {
    lookup: &'a Lookup<'a>,
    access: ClientConfig,
    session: Client,
    source: Source,
    pauses: Pauses,
    started: Instant,
    attempts: u32,
    /// What was wrong before the deadline cut an attempt short.
    last: Option<Failure>,
}

impl<'a> PodLookup<'a> {
    fn new(lookup: &'a Lookup) -> Result<Self, Error> {
        let started = Instant::now();
        let access = read(lookup)?;
        Ok(Self {
            session: Client::new(&access).map_err(|source| unusable(lookup, source))?,
            lookup,
            access,
            source: Source::Cache,
            pauses: Pauses::default(),
            started,
            attempts: 0,
            last: None,
        })
    }

    fn attempt(&mut self) -> Result<Pod, Failure> {
        self.attempts += 1;
        let body = self.session.get(&self.path(), self.remaining())?;
        let wanted = self.lookup.pod;
        let pod = Pod::from_json(&body, wanted)?;
        match &wanted.uid {
            Some(uid) if !wanted.is(&pod) => Err(Failure::Replaced {
                found: pod.uid,
                wanted: uid.clone(),
            }),
            _ => Ok(pod),
        }
    }

    /// Gets ready for the next attempt, or gives the failure back as the last one.
    fn recover(&mut self, failure: Failure) -> Result<Result<(), Failure>, Error> {
        match (failure.verdict(), self.source) {
            (Retry::GiveUp, _) => return Ok(Err(failure)),
            (Retry::Missing, Source::Cache) => {
                self.source = Source::Storage;
                return Ok(Ok(()));
            }
            // Storage has no older truth: another pod has the name for good.
            (Retry::Missing, Source::Storage) if matches!(failure, Failure::Replaced { .. }) => {
                return Ok(Err(failure));
            }
            (Retry::Unauthorized, _) if self.renew_access()? => return Ok(Ok(())),
            (Retry::Missing | Retry::Unauthorized | Retry::Retry, _) => {}
        }
        let remaining = self.remaining();
        if remaining < SHORTEST_ATTEMPT {
            return Ok(Err(self.more_telling(failure)));
        }
        let asked = failure.retry_after().unwrap_or_default();
        if asked >= remaining {
            return Ok(Err(failure));
        }
        // Half of what remains at most: the time up to the deadline is used.
        thread::sleep(self.pauses.next().min(remaining / 2).max(asked));
        self.last = Some(failure);
        Ok(Ok(()))
    }

    /// Reads the kubeconfig again; true when it says something new.
    fn renew_access(&mut self) -> Result<bool, Error> {
        let access = read(self.lookup)?;
        if access == self.access {
            return Ok(false);
        }
        let session = Client::new(&access);
        self.session = session.map_err(|source| unusable(self.lookup, source))?;
        self.access = access;
        Ok(true)
    }

    /// That our own deadline cut the last attempt short says less than the one before.
    fn more_telling(&mut self, failure: Failure) -> Failure {
        match (failure, self.last.take()) {
            (Failure::Timeout { .. }, Some(last)) => last,
            (failure, _) => failure,
        }
    }

    fn path(&self) -> String {
        let PodRef {
            namespace, name, ..
        } = self.lookup.pod;
        let query = match self.source {
            Source::Cache => "?resourceVersion=0",
            Source::Storage => "",
        };
        format!("/api/v1/namespaces/{namespace}/pods/{name}{query}")
    }

    fn remaining(&self) -> Duration {
        self.lookup.timeout.saturating_sub(self.started.elapsed())
    }

    fn tried(&self) -> Attempts {
        Attempts {
            url: self.session.url(&self.path()),
            attempts: self.attempts,
            elapsed: self.started.elapsed(),
        }
    }
}

fn read(lookup: &Lookup) -> Result<ClientConfig, Error> {
    ClientConfig::read(lookup.kubeconfig, lookup.server).map_err(|source| unusable(lookup, source))
}

fn unusable(lookup: &Lookup, source: ConfigError) -> Error {
    Error::Kubeconfig {
        path: lookup.kubeconfig.to_owned(),
        source,
    }
}

/// Pauses that double, each shortened by a random part, so that the pods of a node that
/// start together do not ask together.
#[derive(Default)]
struct Pauses {
    taken: u32,
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.taken.min(8));
        let half = doubled.min(LONGEST_PAUSE) / 2;
        self.taken += 1;
        // Its keys are the one source of randomness that the standard library offers.
        let part = u32::try_from(RandomState::new().hash_one(self.taken) % 1000).unwrap_or(0);
        half + half * part / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let mut pauses = Pauses::default();
        let mut full = FIRST_PAUSE;
        for _ in 0..20 {
            let pause = pauses.next();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            full = (full * 2).min(LONGEST_PAUSE);
        }
    }
}
