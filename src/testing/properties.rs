//! Runs the checks of `fuzzing` with generated inputs that are nearly valid: JSON,
//! configurations, results of every version, environments, kubeconfigs and pods, also with a few
//! bytes changed. The cases are the same in every run; fuzzing searches for new ones.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;

use super::fuzzing;
use crate::names;

proptest! {
    #![proptest_config(fixed_seed_config())]

    #[test]
    fn arbitrary_bytes_pass_all_checks(bytes in vec(any::<u8>(), 0..512)) {
        fuzzing::configuration(&bytes);
        fuzzing::environment(&bytes);
        fuzzing::kubeconfig(&bytes);
        fuzzing::pod(&bytes);
        fuzzing::netlink(&bytes);
    }

    #[test]
    fn arbitrary_json_passes_all_checks(json in json()) {
        fuzzing::configuration(json.as_bytes());
        fuzzing::kubeconfig(json.as_bytes());
        fuzzing::pod(json.as_bytes());
    }

    #[test]
    fn nearly_valid_configuration_gets_a_reply(text in configuration(), mutation in mutation()) {
        fuzzing::configuration(text.as_bytes());
        fuzzing::configuration(&mutation.apply(&text));
    }

    #[test]
    fn nearly_valid_environment_gets_a_reply(lines in environment(), mutation in mutation()) {
        fuzzing::environment(lines.as_bytes());
        fuzzing::environment(&mutation.apply(&lines));
    }

    #[test]
    fn valid_result_is_relayed(text in configuration_with_result()) {
        fuzzing::valid_result(text.as_bytes());
    }

    #[test]
    fn nearly_valid_kubeconfig_is_parsed_or_rejected(text in kubeconfig(), mutation in mutation()) {
        fuzzing::kubeconfig(text.as_bytes());
        fuzzing::kubeconfig(&mutation.apply(&text));
    }

    #[test]
    fn nearly_valid_pod_is_parsed_or_rejected(text in pod(), mutation in mutation()) {
        fuzzing::pod(text.as_bytes());
        fuzzing::pod(&mutation.apply(&text));
    }
}

/// Generates the same cases in every run; `PROPTEST_CASES` sets their number.
pub(crate) fn fixed_seed_config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(554),
        ..ProptestConfig::default()
    }
}

/// Replaces up to three bytes by up to three others.
#[derive(Debug, Clone)]
struct Mutation {
    position: Index,
    removed: usize,
    inserted: Vec<u8>,
}

impl Mutation {
    fn apply(&self, text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        let start = self.position.index(bytes.len() + 1);
        let end = bytes.len().min(start + self.removed);
        bytes.splice(start..end, self.inserted.iter().copied());
        bytes
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let parts = (any::<Index>(), 0_usize..4, vec(any::<u8>(), 0..4));
    parts.prop_map(|(position, removed, inserted)| Mutation {
        position,
        removed,
        inserted,
    })
}

/// Any JSON value, in unusual spellings too.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        select(vec![
            "null",
            "true",
            "false",
            "0",
            "-0.0",
            "1e400",
            "1.50E+3",
            "9007199254740993",
            "123456789012345678901234567890",
            r#""""#,
            r#""\u0061\ud83d\ude00""#,
            r#""\ud800""#,
            r#""\u0000\n\"\\""#,
            r#""SESAME""#,
            r#""1.0.0""#,
            r#""ä€😀""#,
        ])
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        text().prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    scalar.prop_recursive(5, 48, 6, |inner| {
        let key = select(vec![
            "",
            "a",
            "a",
            "\\u0061",
            "\\udc00",
            "cniVersion",
            "prevResult",
            "name",
        ]);
        prop_oneof![
            (vec(inner.clone(), 0..6), space())
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(","))),
            (vec((key, inner), 0..6), space()).prop_map(|(members, space)| {
                let member = |(key, value)| format!(r#"{space}"{key}":{space}{value}"#);
                let members: Vec<String> = members.into_iter().map(member).collect();
                format!("{{{}{space}}}", members.join(","))
            }),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..16).prop_map(String::from_iter)
}

fn space() -> impl Strategy<Value = &'static str> {
    select(vec!["", "", " ", "\n\t\r "])
}

/// A JSON object: each member has one of its values, rarely any other value, or is missing.
fn object(members: Vec<(&'static str, Vec<&'static str>)>) -> impl Strategy<Value = String> {
    let member = |(key, values): (&'static str, Vec<&'static str>)| {
        let usual = select(values).prop_map(|value| Some(value.to_owned()));
        let value = prop_oneof![12 => usual, 1 => json().prop_map(Some), 1 => Just(None)];
        value.prop_map(move |value| value.map(|value| format!("{}:{value}", quoted(key))))
    };
    let members: Vec<_> = members.into_iter().map(member).collect();
    members.prop_map(|members| {
        let members: Vec<String> = members.into_iter().flatten().collect();
        format!("{{{}}}", members.join(","))
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

const VERSIONS: [&str; 7] = [
    r#""0.1.0""#,
    r#""0.2.0""#,
    r#""0.3.0""#,
    r#""0.3.1""#,
    r#""0.4.0""#,
    r#""1.0.0""#,
    r#""1.1.0""#,
];

fn configuration() -> impl Strategy<Value = String> {
    let kubernetes = object(vec![
        ("kubeConfig", vec![r#""/nowhere/k""#]),
        ("kubernetesAPIRoot", vec![r#""""#, r#""https://10.0.0.1""#]),
        ("excludeNamespaces", vec![r#"["media"]"#, "[]"]),
        (
            "interceptname",
            vec![r#""auto""#, r#""nftables""#, r#""ipvs""#],
        ),
        ("podLookupTimeoutSeconds", vec!["30", r#""1""#, "0"]),
    ]);
    let redirect = object(vec![
        ("ports", vec!["[554]", r#"["554",322]"#, "[]", "[0]", "554"]),
        ("proxyPort", vec!["8554", r#""8554""#, "8554.5", "-1"]),
        ("PROXYUID", vec!["1337", "4294967295"]),
        (
            "excludeCIDRs",
            vec![r#"["127.0.0.0/8","::1"]"#, r#"["10/8"]"#],
        ),
        ("ipv6", vec![r#""bypass""#, r#""Reject""#]),
        ("inboundPorts", vec!["[]", "[1,1]"]),
    ]);
    let top = object(vec![
        ("cniVersion", [&VERSIONS[..], &[r#""0.9.0""#]].concat()),
        ("name", vec![r#""n""#, r#""""#, r#""a b""#]),
        ("logLevel", vec![r#""error""#, r#""loud""#]),
        ("kubernetes", vec!["KUBERNETES"]),
        ("redirect", vec!["REDIRECT"]),
        ("prevResult", vec!["PREVIOUS"]),
    ]);
    (top, kubernetes, redirect, json()).prop_map(|(top, kubernetes, redirect, previous)| {
        top.replace("KUBERNETES", &kubernetes)
            .replace("REDIRECT", &redirect)
            .replace("PREVIOUS", &previous)
    })
}

/// A valid configuration with a prevResult in the result format of its CNI version.
fn configuration_with_result() -> impl Strategy<Value = String> {
    let formats = [&VERSIONS[..2], &VERSIONS[2..5], &VERSIONS[5..]];
    let version = || any::<Index>();
    let known = [
        vec![
            r#""ip4":{"ip":"10.0.0.2/24"}"#,
            r#""dns":{"nameservers":["10.0.0.1"]}"#,
        ],
        vec![
            r#""interfaces":[{"name":"eth0","sandbox":"/run/netns/a"}]"#,
            r#""ips":[{"version":"4","address":"10.0.0.2/24","interface":0}]"#,
        ],
        vec![
            r#""interfaces":[{"name":"eth0","mac":"aa:bb:cc:dd:ee:ff"}]"#,
            r#""ips":[{"address":"10.0.0.2/24"}]"#,
            r#""routes":[{"dst":"0.0.0.0/0"}]"#,
        ],
    ];
    let unknown = vec(
        (
            select(vec!["x", "y", "\\u0078", "é", "X-"]),
            json(),
            space(),
        ),
        0..5,
    );
    let parts = (
        0_usize..3,
        version(),
        version(),
        any::<bool>(),
        unknown,
        space(),
    );
    parts.prop_map(move |(format, version, given, has_version, unknown, space)| {
        let (versions, known) = (formats[format], &known[format]);
        let mut members: Vec<String> = known.iter().map(|it| (*it).to_owned()).collect();
        let spelled = |(key, value, space)| format!("{space}\"{key}\"{space}:{value}{space}");
        members.extend(unknown.into_iter().map(spelled));
        if has_version {
            let member = format!("\"cniVersion\":{space}{}", given.get(versions));
            members.insert(given.index(members.len()), member);
        }
        format!(
            r#"{{"cniVersion":{},"name":"n","kubernetes":{{"kubeConfig":"/nowhere/k"}},"prevResult":{space}{{{}}}}}"#,
            version.get(versions),
            members.join(",")
        )
    })
}

fn environment() -> impl Strategy<Value = String> {
    let pair = prop_oneof![
        4 => select(vec![
            "K8S_POD_NAMESPACE=media", "K8S_POD_NAMESPACE=", "K8S_POD_NAMESPACE=..",
            "K8S_POD_NAME=web", "K8S_POD_NAME=a/b", "K8S_POD_NAME=a..b", "K8S_POD_UID=1-2",
            "K8S_POD_UID=a b", "IgnoreUnknown=1", "=", "a", "",
        ])
        .prop_map(str::to_owned),
        1 => text(),
    ];
    let one_of = |values: &[&'static str]| {
        let usual = select(values.to_vec()).prop_map(str::to_owned);
        prop_oneof![8 => usual, 1 => text()]
    };
    let lines = (
        one_of(&["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "add"]),
        one_of(&["0a", "-", "ä"]),
        one_of(&["eth0", "a/b", "0123456789abcdef"]),
        one_of(&["/opt/cni/bin"]),
        one_of(&["a", ""]),
        vec(pair, 0..6).prop_map(|pairs| pairs.join(";")),
        one_of(&["", "1", "TRUE"]),
    );
    lines.prop_map(|(command, id, interface, path, netns, args, override_)| {
        [command, id, interface, path, netns, args, override_].join("\n")
    })
}

fn kubeconfig() -> impl Strategy<Value = String> {
    let cluster = object(vec![
        (
            "server",
            vec![r#""https://[10.0.0.1]:6443""#, r#""http://a""#, r#""""#],
        ),
        (
            "certificate-authority-data",
            vec![r#""Q0E=""#, r#""SESAME!""#],
        ),
        ("insecure-skip-tls-verify", vec!["false", "true"]),
        ("tls-server-name", vec![r#""a.b""#, "null"]),
    ]);
    let user = object(vec![
        ("token", vec![r#""SESAME""#, r#""""#]),
        ("client-certificate", vec!["null", r#""c.crt""#]),
        (
            "client-key-data",
            vec!["null", r#""U0VTQU1F""#, r#""SESAME!""#],
        ),
        ("password", vec!["null", r#""SESAME""#]),
    ]);
    let shape = select(vec![
        "{\"clusters\":[{\"name\":\"c\",\"cluster\":CLUSTER}],\"users\":[{\"name\":\"u\",\"user\":USER}],\"contexts\":[{\"name\":\"x\",\"context\":{\"cluster\":\"c\",\"user\":\"u\"}}],\"current-context\":\"x\"}",
        "clusters:\n- name: c\n  cluster: CLUSTER\nusers:\n- user: USER\n  name: u\ncontexts:\n- context:\n    cluster: 'c'\n    user: |-\n      u\n  name: x\ncurrent-context: \"x\"\n",
    ]);
    (shape, cluster, user).prop_map(|(shape, cluster, user)| {
        shape.replace("CLUSTER", &cluster).replace("USER", &user)
    })
}

fn pod() -> impl Strategy<Value = String> {
    let annotations = object(vec![
        (
            names::PORTS_ANNOTATION,
            vec![r#""554""#, r#""554, 322,554""#, r#""""#, r#""a\u0000""#],
        ),
        (names::PROXY_PORT_ANNOTATION, vec![r#""8554""#, r#""0""#]),
        (names::PROXY_UID_ANNOTATION, vec![r#""0""#, r#""-1""#]),
        (
            names::EXCLUDE_CIDRS_ANNOTATION,
            vec![
                r#""""#,
                r#""10.0.0.0/9,::/0,0.0.0.0/0""#,
                r#""1.2.3.4,fd00::1""#,
            ],
        ),
        (
            names::IPV6_ANNOTATION,
            vec![r#""bypass""#, r#""redirect""#, r#""reject""#],
        ),
        (
            names::INBOUND_PORTS_ANNOTATION,
            vec![r#""""#, r#""1,65535""#],
        ),
    ]);
    let spec = object(vec![
        (
            "containers",
            vec!["null", r#"[{"ports":[{"containerPort":8554}]}]"#],
        ),
        (
            "initContainers",
            vec!["[]", r#"[{"restartPolicy":"Always"}]"#],
        ),
        ("securityContext", vec!["{}", r#"{"runAsUser":1337}"#]),
    ]);
    (annotations, spec).prop_map(|(annotations, spec)| {
        format!(
            r#"{{"kind":"Pod","metadata":{{"name":"web","namespace":"media","uid":"1","labels":{{"{}":"true"}},"annotations":{annotations}}},"spec":{spec}}}"#,
            names::INJECT_LABEL
        )
    })
}
