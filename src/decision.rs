//! Decides from a pod's label whether it is redirected, and from its annotations with which
//! options. Returns the reason; the caller logs it. Pure.

use std::fmt;

use crate::kube::{Pod, PodRef};
use crate::names;
use crate::redirect::Redirect;
use crate::redirect::parameters::PARAMETERS;
use crate::redirect::policy::ParseError;

/// Outcome of the checks that do not need the pod.
#[derive(Debug, PartialEq, Eq)]
pub enum Precheck<'a> {
    PassThrough(Reason),
    /// The pod's label has to be looked up.
    Lookup(&'a PodRef),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    PassThrough(Reason),
    Redirect { redirect: Redirect, stub: Stub },
}

/// Whether a container of the pod looks like the stub, by its port or its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stub {
    Found,
    NotFound,
}

/// Why a pod is passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    NotAPod,
    ExcludedNamespace,
    NoLabel,
    LabelFalse,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}")]
pub struct InvalidAnnotation {
    annotation: &'static str,
    source: ParseError,
}

/// Checks the request alone, so that containers outside MSM cost no pod lookup.
pub fn precheck<'a>(pod: Option<&'a PodRef>, exclude_namespaces: &[String]) -> Precheck<'a> {
    match pod {
        None => Precheck::PassThrough(Reason::NotAPod),
        Some(pod) if exclude_namespaces.contains(&pod.namespace) => {
            Precheck::PassThrough(Reason::ExcludedNamespace)
        }
        Some(pod) => Precheck::Lookup(pod),
    }
}

/// Decides by the pod's label. The pod's annotations override `configured`.
pub fn decide(pod: &Pod, configured: &Redirect) -> Result<Decision, InvalidAnnotation> {
    match pod.labels.get(names::INJECT_LABEL) {
        None => return Ok(Decision::PassThrough(Reason::NoLabel)),
        Some(value) if value.eq_ignore_ascii_case("false") => {
            return Ok(Decision::PassThrough(Reason::LabelFalse));
        }
        Some(_) => {}
    }
    let redirect = with_annotations(pod, configured)?;
    let found = pod.ports.contains(&redirect.proxy_port.get())
        || pod.users.contains(&redirect.proxy_uid.get());
    Ok(Decision::Redirect {
        redirect,
        stub: if found { Stub::Found } else { Stub::NotFound },
    })
}

fn with_annotations(pod: &Pod, configured: &Redirect) -> Result<Redirect, InvalidAnnotation> {
    let mut redirect = configured.clone();
    for parameter in &PARAMETERS {
        let annotation = parameter.annotation;
        if let Some(text) = pod.annotations.get(annotation) {
            parameter
                .set(&mut redirect, text)
                .map_err(|source| InvalidAnnotation { annotation, source })?;
        }
    }
    Ok(redirect)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NotAPod => f.write_str("CNI_ARGS does not name a pod and its namespace"),
            Self::ExcludedNamespace => f.write_str("namespace excluded by excludeNamespaces"),
            Self::NoLabel => write!(f, "no label {}", names::INJECT_LABEL),
            Self::LabelFalse => write!(f, "label {} is false", names::INJECT_LABEL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::policy::Ipv6Mode;

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
    fn pod_is_redirected_unless_its_label_is_missing_or_false() {
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
                (Decision::PassThrough(actual), Some(reason)) => {
                    assert_eq!(actual, reason, "{label:?}");
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
    fn invalid_annotation_is_named_in_the_error() {
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
    fn annotations_are_ignored_if_the_label_is_false() {
        let pod = pod(Some("false"), &[(names::PORTS_ANNOTATION, "x")]);
        assert_eq!(
            decide(&pod, &Redirect::default()),
            Ok(Decision::PassThrough(Reason::LabelFalse))
        );
    }

    #[test]
    fn stub_is_recognised_by_its_port_or_its_user() {
        for (ports, users, expected) in [
            (&[][..], &[][..], Stub::NotFound),
            (&[80, 8554], &[], Stub::Found),
            (&[], &[0, 1337], Stub::Found),
            (&[554], &[0], Stub::NotFound),
        ] {
            let pod = Pod {
                ports: ports.iter().copied().collect(),
                users: users.iter().copied().collect(),
                ..pod(Some("true"), &[])
            };
            let Ok(Decision::Redirect { stub, .. }) = decide(&pod, &Redirect::default()) else {
                panic!("{pod:?}")
            };
            assert_eq!(stub, expected, "{pod:?}");
        }
    }

    #[test]
    fn excluded_namespaces_and_non_pods_are_not_looked_up() {
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
        assert_eq!(precheck(Some(&pod), &[]), Precheck::Lookup(&pod));
    }
}
