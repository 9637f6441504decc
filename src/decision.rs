//! Who is redirected, and how: the label, then the annotations. Pure; it returns its
//! reason, logging is for others.

use std::fmt;
use std::str::FromStr;

use crate::kube::{Pod, PodRef};
use crate::names;
use crate::redirect::{self, Ipv6Mode, Redirect};
use crate::text::excerpt;

/// What follows from the request alone.
#[derive(Debug, PartialEq, Eq)]
pub enum Precheck<'a> {
    PassThrough(Reason),
    /// The pod's labels decide.
    Ask(&'a PodRef),
}

/// What follows from the pod.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    PassThrough(Reason),
    Redirect { redirect: Redirect, stub: Stub },
}

/// Whether one of the pod's containers looks like the stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stub {
    Seen,
    NotSeen,
}

/// Why a pod is passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    NotAPod,
    ExcludedNamespace,
    NoLabel,
    LabelFalse,
}

/// An annotation that says nothing we can do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation} is {value:?}, which is not valid: {reason}")]
pub struct InvalidAnnotation {
    annotation: &'static str,
    value: String,
    reason: String,
}

/// Decides without asking anybody.
pub fn precheck<'a>(pod: Option<&'a PodRef>, exclude_namespaces: &[String]) -> Precheck<'a> {
    match pod {
        None => Precheck::PassThrough(Reason::NotAPod),
        Some(pod) if exclude_namespaces.contains(&pod.namespace) => {
            Precheck::PassThrough(Reason::ExcludedNamespace)
        }
        Some(pod) => Precheck::Ask(pod),
    }
}

/// Decides by the pod; `configured` is the redirect of pods without annotations.
pub fn decide(pod: &Pod, configured: &Redirect) -> Result<Decision, InvalidAnnotation> {
    match pod.labels.get(names::INJECT_LABEL) {
        None => return Ok(Decision::PassThrough(Reason::NoLabel)),
        Some(value) if value.eq_ignore_ascii_case("false") => {
            return Ok(Decision::PassThrough(Reason::LabelFalse));
        }
        Some(_) => {}
    }
    let redirect = annotated(pod, configured)?;
    let port = redirect.proxy_port.get();
    let uid = redirect.proxy_uid.get();
    let seen = pod.ports.contains(&port) || pod.users.contains(&uid);
    Ok(Decision::Redirect {
        redirect,
        stub: if seen { Stub::Seen } else { Stub::NotSeen },
    })
}

fn annotated(pod: &Pod, configured: &Redirect) -> Result<Redirect, InvalidAnnotation> {
    let annotations = Annotations(pod);
    let ports = annotations
        .list(names::PORTS_ANNOTATION)?
        .unwrap_or_else(|| configured.ports.clone());
    if ports.is_empty() {
        return Err(annotations.invalid(
            names::PORTS_ANNOTATION,
            "a redirect needs at least one port".into(),
        ));
    }
    Ok(Redirect {
        ports,
        proxy_port: annotations
            .value(names::PROXY_PORT_ANNOTATION)?
            .unwrap_or(configured.proxy_port),
        proxy_uid: annotations
            .value(names::PROXY_UID_ANNOTATION)?
            .unwrap_or(configured.proxy_uid),
        exclude_cidrs: annotations
            .list(names::EXCLUDE_CIDRS_ANNOTATION)?
            .unwrap_or_else(|| configured.exclude_cidrs.clone()),
        ipv6: annotations
            .value::<Ipv6Mode>(names::IPV6_ANNOTATION)?
            .unwrap_or(configured.ipv6),
        inbound_ports: annotations
            .list(names::INBOUND_PORTS_ANNOTATION)?
            .unwrap_or_else(|| configured.inbound_ports.clone()),
    })
}

struct Annotations<'a>(&'a Pod);

impl Annotations<'_> {
    fn text(&self, annotation: &str) -> Option<&str> {
        self.0.annotations.get(annotation).map(String::as_str)
    }

    fn invalid(&self, annotation: &'static str, reason: String) -> InvalidAnnotation {
        let value = excerpt(self.text(annotation).unwrap_or_default());
        InvalidAnnotation {
            annotation,
            value,
            reason,
        }
    }

    fn value<T: FromStr<Err: ToString>>(
        &self,
        annotation: &'static str,
    ) -> Result<Option<T>, InvalidAnnotation> {
        let parsed = self
            .text(annotation)
            .map(|text| text.trim().parse())
            .transpose();
        parsed.map_err(|reason: T::Err| self.invalid(annotation, reason.to_string()))
    }

    /// Comma-separated; an empty text is an empty list.
    fn list<T: FromStr<Err: ToString> + PartialEq>(
        &self,
        annotation: &'static str,
    ) -> Result<Option<Vec<T>>, InvalidAnnotation> {
        let Some(text) = self.text(annotation) else {
            return Ok(None);
        };
        let mut list = Vec::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|_| !text.trim().is_empty())
        {
            let item = item
                .parse()
                .map_err(|reason: T::Err| self.invalid(annotation, reason.to_string()))?;
            redirect::add(&mut list, item)
                .map_err(|reason| self.invalid(annotation, reason.to_string()))?;
        }
        Ok(Some(list))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NotAPod => write!(
                f,
                "CNI_ARGS does not name a Kubernetes pod and its namespace"
            ),
            Self::ExcludedNamespace => write!(f, "its namespace is excluded"),
            Self::NoLabel => write!(f, "it has no label {}", names::INJECT_LABEL),
            Self::LabelFalse => write!(f, "its label {} is false", names::INJECT_LABEL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(label: Option<&str>, annotations: &[(&str, &str)]) -> Pod {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Pod {
            labels: label
                .map(|label| owned((names::INJECT_LABEL, label)))
                .into_iter()
                .collect(),
            annotations: annotations.iter().copied().map(owned).collect(),
            ..Pod::default()
        }
    }

    fn redirect(annotations: &[(&str, &str)]) -> Result<Redirect, InvalidAnnotation> {
        match decide(&pod(Some("true"), annotations), &Redirect::default())? {
            Decision::Redirect { redirect, .. } => Ok(redirect),
            Decision::PassThrough(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn the_label_decides() {
        for (label, reason) in [
            (None, Some(Reason::NoLabel)),
            (Some("false"), Some(Reason::LabelFalse)),
            (Some("FALSE"), Some(Reason::LabelFalse)),
            (Some("False"), Some(Reason::LabelFalse)),
            (Some("true"), None),
            (Some(""), None),
            (Some("no"), None),
            (Some("0"), None),
        ] {
            let decision = decide(&pod(label, &[]), &Redirect::default()).unwrap();
            match (decision, reason) {
                (Decision::PassThrough(found), Some(reason)) => {
                    assert_eq!(found, reason, "{label:?}");
                }
                (Decision::Redirect { .. }, None) => {}
                (decision, _) => panic!("{label:?}: {decision:?}"),
            }
        }
    }

    #[test]
    fn annotations_override_the_configuration() {
        let redirect = redirect(&[
            (names::PORTS_ANNOTATION, "554, 322,554"),
            (names::PROXY_PORT_ANNOTATION, "9554"),
            (names::PROXY_UID_ANNOTATION, "2000"),
            (names::EXCLUDE_CIDRS_ANNOTATION, ""),
            (names::IPV6_ANNOTATION, "reject"),
            (names::INBOUND_PORTS_ANNOTATION, "8000"),
        ])
        .unwrap();
        assert_eq!(
            redirect
                .ports
                .iter()
                .map(|port| port.get())
                .collect::<Vec<_>>(),
            [554, 322]
        );
        assert_eq!(redirect.proxy_port.get(), 9554);
        assert_eq!(redirect.proxy_uid.get(), 2000);
        assert!(redirect.exclude_cidrs.is_empty());
        assert_eq!(redirect.ipv6, Ipv6Mode::Reject);
        assert_eq!(redirect.inbound_ports.len(), 1);
    }

    #[test]
    fn an_invalid_annotation_is_an_error_that_names_it() {
        for (annotation, value) in [
            (names::PORTS_ANNOTATION, ""),
            (names::PORTS_ANNOTATION, "554,"),
            (names::PORTS_ANNOTATION, "0"),
            (names::PORTS_ANNOTATION, "all"),
            (names::PROXY_PORT_ANNOTATION, "65536"),
            (names::PROXY_PORT_ANNOTATION, ""),
            (names::PROXY_UID_ANNOTATION, "stub"),
            (names::EXCLUDE_CIDRS_ANNOTATION, "10.0.0.0/8;11.0.0.0/8"),
            (names::IPV6_ANNOTATION, "Reject"),
            (names::INBOUND_PORTS_ANNOTATION, "1-3"),
        ] {
            let error = redirect(&[(annotation, value)]).unwrap_err().to_string();
            assert!(error.contains(annotation), "{error}");
        }
    }

    #[test]
    fn annotations_of_a_pod_that_is_passed_through_are_not_read() {
        let pod = pod(Some("false"), &[(names::PORTS_ANNOTATION, "x")]);
        assert_eq!(
            decide(&pod, &Redirect::default()),
            Ok(Decision::PassThrough(Reason::LabelFalse))
        );
    }

    #[test]
    fn the_stub_is_known_by_its_port_or_its_user() {
        for (ports, users, seen) in [
            (&[][..], &[][..], Stub::NotSeen),
            (&[80, 8554], &[], Stub::Seen),
            (&[], &[0, 1337], Stub::Seen),
            (&[554], &[0], Stub::NotSeen),
        ] {
            let pod = Pod {
                ports: ports.iter().copied().collect(),
                users: users.iter().copied().collect(),
                ..pod(Some("true"), &[])
            };
            let Ok(Decision::Redirect { stub, .. }) = decide(&pod, &Redirect::default()) else {
                panic!("{pod:?}")
            };
            assert_eq!(stub, seen, "{pod:?}");
        }
    }

    #[test]
    fn excluded_namespaces_and_others_than_pods_are_not_asked_about() {
        let pod = PodRef::new("kube-system", "dns", None).unwrap();
        let excluded = ["kube-system".to_owned()];
        assert_eq!(
            precheck(None, &excluded),
            Precheck::PassThrough(Reason::NotAPod)
        );
        assert_eq!(
            precheck(Some(&pod), &excluded),
            Precheck::PassThrough(Reason::ExcludedNamespace)
        );
        assert_eq!(precheck(Some(&pod), &[]), Precheck::Ask(&pod));
    }
}
