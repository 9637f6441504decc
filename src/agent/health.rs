//! The routes of the health server: `/healthz` (the loop is running) and `/readyz` (the node is
//! in the desired state).

use serde_json::json;

use crate::http::{Request, Response};
use crate::node::Status;

/// What `/readyz` reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Why the node is not ready; empty if it is.
    pub reasons: Vec<String>,
    /// Drift repaired since the node was first ready.
    pub repairs: u64,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            reasons: vec!["the installer has just started".into()],
            repairs: 0,
        }
    }
}

impl Readiness {
    /// Publishes a status, and logs each change of readiness.
    pub fn publish(&mut self, status: &Status) {
        self.repairs = status.repairs;
        let Some(reasons) = &status.reasons else {
            return;
        };
        if self.reasons == *reasons {
            return;
        }
        if reasons.is_empty() {
            log::info!("ready: this node is in the desired state");
        }
        for reason in reasons.iter().filter(|it| !self.reasons.contains(it)) {
            log::warn!("not ready: {reason}");
        }
        self.reasons.clone_from(reasons);
    }

    pub fn respond(&self, request: &Request) -> Response {
        match request.path {
            "/healthz" => Response::json("200 OK", "{\"alive\":true}\n"),
            "/readyz" => {
                let ready = self.reasons.is_empty();
                let status = if ready {
                    "200 OK"
                } else {
                    "503 Service Unavailable"
                };
                let body = json!({
                    "ready": ready, "reasons": self.reasons, "repairs": self.repairs,
                });
                Response::json(status, format!("{body}\n"))
            }
            _ => Response::json("404 Not Found", ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(readiness: &Readiness, path: &str) -> (&'static str, String) {
        let response = readiness.respond(&Request { path });
        (response.status, response.body)
    }

    #[test]
    fn readyz_reports_reasons_and_repairs() {
        let mut readiness = Readiness {
            reasons: vec!["a \"reason\"".into()],
            repairs: 3,
        };
        let body = r#"{"ready":false,"reasons":["a \"reason\""],"repairs":3}"#;
        assert_eq!(
            get(&readiness, "/readyz"),
            ("503 Service Unavailable", format!("{body}\n"))
        );
        assert_eq!(get(&readiness, "/healthz").0, "200 OK");
        readiness.reasons.clear();
        let body = r#"{"ready":true,"reasons":[],"repairs":3}"#;
        assert_eq!(get(&readiness, "/readyz"), ("200 OK", format!("{body}\n")));
        assert_eq!(get(&readiness, "/metrics").0, "404 Not Found");
    }
}
