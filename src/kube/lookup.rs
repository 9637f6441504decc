//! Looks up a pod at the API server: first in the server's cache, with retries and growing
//! delays, until one deadline.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::config::client_config::{ClientConfig, ConfigError};
use super::error::{AttemptError, Attempts, LookupError, RequestError, Retry};
use super::pod::{Pod, PodRef};
use super::server::Server;
use crate::text::error_chain;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);
/// With less time than this, another attempt would only time out.
const MIN_ATTEMPT: Duration = Duration::from_millis(50);

/// Which pod to look up, and where.
pub struct PodQuery<'a> {
    /// Read again if the API server responds with 401.
    pub kubeconfig: &'a Path,
    /// Overrides the kubeconfig's server.
    pub server: Option<&'a Server>,
    pub pod: &'a PodRef,
    /// For all attempts together.
    pub timeout: Duration,
}

/// Checks that a kubeconfig can be used. Sends nothing.
pub fn check_config(kubeconfig: &Path, server: Option<&Server>) -> Result<(), LookupError> {
    ClientConfig::read(kubeconfig, server)
        .and_then(|config| Ok(Client::new(&config)?))
        .map(drop)
        .map_err(|source| unusable(kubeconfig, source))
}

/// Looks up a pod. Blocks for the query's timeout at most.
pub fn fetch_pod(query: &PodQuery) -> Result<Pod, LookupError> {
    let mut lookup = PodLookup::new(query)?;
    loop {
        match lookup.attempt() {
            Ok(pod) => {
                log::debug!("{}: found UID {}", lookup.attempts(), pod.uid);
                return Ok(pod);
            }
            Err(error) => {
                log::debug!("{}: {}", lookup.attempts(), error_chain(&error));
                lookup.prepare_retry(error)?;
            }
        }
    }
}

/// One pod lookup with its retries.
struct PodLookup<'a> {
    query: &'a PodQuery<'a>,
    config: ClientConfig,
    client: Client,
    source: Source,
    delay: RetryDelay,
    started: Instant,
    count: u32,
    /// The error of the previous attempt, if the current one followed a delay.
    previous: Option<AttemptError>,
}

/// Where the API server reads the pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Its watch cache (`resourceVersion=0`): no load on etcd, but possibly outdated.
    Cache,
    /// etcd.
    Storage,
}

impl<'a> PodLookup<'a> {
    fn new(query: &'a PodQuery) -> Result<Self, LookupError> {
        let started = Instant::now();
        let config = read_config(query)?;
        Ok(Self {
            client: new_client(query, &config)?,
            query,
            config,
            source: Source::Cache,
            delay: RetryDelay::default(),
            started,
            count: 0,
            previous: None,
        })
    }

    fn attempt(&mut self) -> Result<Pod, AttemptError> {
        self.count += 1;
        let body = self.client.get(&self.path(), self.remaining())?;
        let pod = Pod::from_json(&body)?;
        let expected = self.query.pod;
        if pod.namespace != expected.namespace || pod.name != expected.name {
            return Err(AttemptError::OtherPod);
        }
        match &expected.uid {
            Some(uid) if !pod.has_uid(uid) => Err(AttemptError::Replaced {
                actual: pod.uid,
                expected: uid.clone(),
            }),
            _ => Ok(pod),
        }
    }

    /// Prepares the next attempt after `error`, and waits if necessary. Returns the lookup's
    /// error if `error` is final.
    fn prepare_retry(&mut self, error: AttemptError) -> Result<(), LookupError> {
        match (error.retry(), self.source) {
            (Retry::Never, _) => return Err(self.give_up(error)),
            (Retry::BypassCache, Source::Cache) => {
                self.source = Source::Storage;
                return Ok(());
            }
            // Storage is current: the pod with the expected UID no longer exists.
            (Retry::BypassCache, Source::Storage)
                if matches!(error, AttemptError::Replaced { .. }) =>
            {
                return Err(self.give_up(error));
            }
            (Retry::ReloadConfig, _) if self.reload_config()? => return Ok(()),
            (Retry::BypassCache | Retry::ReloadConfig | Retry::Again, _) => {}
        }
        let remaining = self.remaining();
        if remaining < MIN_ATTEMPT {
            let error = root_cause(error, self.previous.take());
            return Err(self.give_up(error));
        }
        let retry_after = error.retry_after().unwrap_or_default();
        if retry_after >= remaining {
            return Err(self.give_up(error));
        }
        // At most half of the remaining time, so that there is time for a last attempt.
        thread::sleep(self.delay.next().min(remaining / 2).max(retry_after));
        self.previous = Some(error);
        Ok(())
    }

    /// Reads the kubeconfig again. Returns whether it has changed.
    fn reload_config(&mut self) -> Result<bool, LookupError> {
        let config = read_config(self.query)?;
        if config == self.config {
            return Ok(false);
        }
        self.client = new_client(self.query, &config)?;
        self.config = config;
        Ok(true)
    }

    fn give_up(&self, error: AttemptError) -> LookupError {
        error.into_error(self.attempts())
    }

    fn path(&self) -> String {
        let PodRef {
            namespace, name, ..
        } = self.query.pod;
        let query = match self.source {
            Source::Cache => "?resourceVersion=0",
            Source::Storage => "",
        };
        format!("/api/v1/namespaces/{namespace}/pods/{name}{query}")
    }

    fn remaining(&self) -> Duration {
        self.query.timeout.saturating_sub(self.started.elapsed())
    }

    fn attempts(&self) -> Attempts {
        Attempts {
            url: self.client.url(&self.path()),
            count: self.count,
            elapsed: self.started.elapsed(),
        }
    }
}

fn read_config(query: &PodQuery) -> Result<ClientConfig, LookupError> {
    ClientConfig::read(query.kubeconfig, query.server)
        .map_err(|source| unusable(query.kubeconfig, source))
}

fn new_client(query: &PodQuery, config: &ClientConfig) -> Result<Client, LookupError> {
    Client::new(config).map_err(|source| unusable(query.kubeconfig, source.into()))
}

fn unusable(kubeconfig: &Path, source: ConfigError) -> LookupError {
    LookupError::Kubeconfig {
        path: kubeconfig.to_owned(),
        source,
    }
}

/// If the lookup's own deadline ended the last attempt, the previous error is the cause.
fn root_cause(last: AttemptError, previous: Option<AttemptError>) -> AttemptError {
    match (last, previous) {
        (AttemptError::Request(RequestError::Timeout { .. }), Some(previous)) => previous,
        (last, _) => last,
    }
}

/// Delays that double up to a limit. Each is shortened by a random part, so that pods that
/// start together do not retry together.
#[derive(Default)]
struct RetryDelay {
    count: u32,
}

impl RetryDelay {
    fn next(&mut self) -> Duration {
        let doubled = FIRST_DELAY.saturating_mul(1 << self.count.min(8));
        let half = doubled.min(MAX_DELAY) / 2;
        self.count += 1;
        // RandomState is the only source of randomness in the standard library.
        let [random, ..] = RandomState::new().hash_one(self.count).to_ne_bytes();
        half + half * u32::from(random) / u32::from(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_of_the_last_attempt_does_not_hide_the_previous_error() {
        let timeout = || {
            let source = ureq::Error::Timeout(ureq::Timeout::Global);
            AttemptError::Request(RequestError::Timeout { source })
        };
        let is_timeout = |error: &AttemptError| {
            matches!(error, AttemptError::Request(RequestError::Timeout { .. }))
        };
        let other = || AttemptError::OtherPod;
        assert!(!is_timeout(&root_cause(timeout(), Some(other()))));
        assert!(is_timeout(&root_cause(timeout(), None)));
        assert!(!is_timeout(&root_cause(other(), Some(timeout()))));
    }

    #[test]
    fn delays_double_up_to_the_limit() {
        let mut delay = RetryDelay::default();
        let mut longest = FIRST_DELAY;
        for _ in 0..20 {
            let next = delay.next();
            assert!(
                next >= longest / 2 && next <= longest,
                "{next:?} of {longest:?}"
            );
            longest = (longest * 2).min(MAX_DELAY);
        }
    }
}
