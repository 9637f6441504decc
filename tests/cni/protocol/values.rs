//! The values of the previous result, as the specification of each version describes them
//! and the reference decodes them.

use super::plugin::{FAMILIES, ask, assert_error, with_result};

#[test]
fn what_every_version_refuses() {
    for (family, refused) in [
        (FAMILIES[0], WITH_IP4_AND_IP6),
        (FAMILIES[1], WITH_INTERFACES),
        (FAMILIES[1], WITH_IP_VERSION),
        (FAMILIES[2], WITH_INTERFACES),
        (&["1.1.0"], OF_1_1),
        (FAMILIES[0], OF_ALL),
        (FAMILIES[1], OF_ALL),
        (FAMILIES[2], OF_ALL),
    ] {
        for (result, sentence) in refused {
            for version in family {
                let input = with_result(version, result);
                let error = assert_error(ask("ADD", &input), 6, sentence);
                assert_eq!(error["cniVersion"], *version, "{error}");
                if *version >= "0.4.0" {
                    assert_error(ask("CHECK", &input), 6, sentence);
                }
                assert_eq!(ask("DEL", &input).succeeded().stdout, "");
            }
            if family.contains(&"1.1.0") {
                assert_eq!(
                    ask("GC", &with_result("1.1.0", result)).succeeded().stdout,
                    ""
                );
            }
        }
    }
}

type Refused = &'static [(&'static str, &'static str)];

const OF_ALL: Refused = &[
    ("[]", "an array, not an object"),
    ("7", "a number, not an object"),
    (r#""sesame""#, "a string, not an object"),
    ("true", "a boolean, not an object"),
    (
        r#"{"cniVersion":7}"#,
        "prevResult.cniVersion is 7, which is not a text",
    ),
    (
        r#"{"cniVersion":["sesame"]}"#,
        "prevResult.cniVersion is an array",
    ),
    (
        r#"{"dns":[]}"#,
        "prevResult.dns is an array, which is not an object",
    ),
    (r#"{"dns":"10.0.0.1"}"#, r#"prevResult.dns is "10.0.0.1""#),
    (
        r#"{"dns":{"nameservers":"10.0.0.1"}}"#,
        r#"prevResult.dns.nameservers is "10.0.0.1", which is not a list"#,
    ),
    (
        r#"{"dns":{"nameservers":["10.0.0.1",7]}}"#,
        "prevResult.dns.nameservers[1] is 7, which is not a text",
    ),
    (
        r#"{"dns":{"domain":false}}"#,
        "prevResult.dns.domain is false",
    ),
    (
        r#"{"dns":{"search":{"token":"sesame"}}}"#,
        "prevResult.dns.search is an object",
    ),
    (
        r#"{"dns":{"options":[[]]}}"#,
        "prevResult.dns.options[0] is an array",
    ),
];

const WITH_IP4_AND_IP6: Refused = &[
    (
        r#"{"ip4":[]}"#,
        "prevResult.ip4 is an array, which is not an object",
    ),
    (
        r#"{"ip6":"fd00::1/64"}"#,
        r#"prevResult.ip6 is "fd00::1/64", which is not an object"#,
    ),
    (
        r#"{"ip4":{"ip":7}}"#,
        "prevResult.ip4.ip is 7, which is not an address with a prefix length",
    ),
    (r#"{"ip4":{"ip":""}}"#, r#"prevResult.ip4.ip is """#),
    (
        r#"{"ip4":{"ip":"10.0.0.2"}}"#,
        r#"prevResult.ip4.ip is "10.0.0.2""#,
    ),
    (
        r#"{"ip4":{"ip":"10.0.0.2/33"}}"#,
        r#"prevResult.ip4.ip is "10.0.0.2/33""#,
    ),
    (
        r#"{"ip6":{"ip":"fd00::2/129"}}"#,
        r#"prevResult.ip6.ip is "fd00::2/129""#,
    ),
    (
        r#"{"ip4":{"gateway":7}}"#,
        "prevResult.ip4.gateway is 7, which is not an IP address",
    ),
    (
        r#"{"ip4":{"gateway":"10.0.0.1/24"}}"#,
        r#"prevResult.ip4.gateway is "10.0.0.1/24""#,
    ),
    (
        r#"{"ip4":{"routes":{}}}"#,
        "prevResult.ip4.routes is an object, which is not a list",
    ),
    (
        r#"{"ip4":{"routes":["0.0.0.0/0"]}}"#,
        r#"prevResult.ip4.routes[0] is "0.0.0.0/0", which is not an object"#,
    ),
    (
        r#"{"ip6":{"routes":[{},{"dst":"default"}]}}"#,
        r#"prevResult.ip6.routes[1].dst is "default""#,
    ),
    (
        r#"{"ip4":{"routes":[{"gw":"10.0.0"}]}}"#,
        r#"prevResult.ip4.routes[0].gw is "10.0.0""#,
    ),
];

const WITH_INTERFACES: Refused = &[
    (
        r#"{"interfaces":{}}"#,
        "prevResult.interfaces is an object, which is not a list",
    ),
    (
        r#"{"interfaces":["eth0"]}"#,
        r#"prevResult.interfaces[0] is "eth0", which is not an object"#,
    ),
    (
        r#"{"interfaces":[{"name":7}]}"#,
        "prevResult.interfaces[0].name is 7, which is not a text",
    ),
    (
        r#"{"interfaces":[{},{"mac":[]}]}"#,
        "prevResult.interfaces[1].mac is an array",
    ),
    (
        r#"{"interfaces":[{"sandbox":{"token":"sesame"}}]}"#,
        "prevResult.interfaces[0].sandbox is an object",
    ),
    (
        r#"{"ips":{}}"#,
        "prevResult.ips is an object, which is not a list",
    ),
    (
        r#"{"ips":["10.0.0.2/24"]}"#,
        r#"prevResult.ips[0] is "10.0.0.2/24", which is not an object"#,
    ),
    (
        r#"{"ips":[{"address":"10.0.0.2/24"},{"address":"10.0.0.300/24"}]}"#,
        r#"prevResult.ips[1].address is "10.0.0.300/24", which is not an address with a prefix length"#,
    ),
    (
        r#"{"ips":[{"address":7}]}"#,
        "prevResult.ips[0].address is 7",
    ),
    (
        r#"{"ips":[{"address":""}]}"#,
        r#"prevResult.ips[0].address is """#,
    ),
    (
        r#"{"ips":[{"address":"10.0.0.2"}]}"#,
        r#"prevResult.ips[0].address is "10.0.0.2""#,
    ),
    (
        r#"{"ips":[{"address":"10.0.0.2/"}]}"#,
        r#"prevResult.ips[0].address is "10.0.0.2/""#,
    ),
    (
        r#"{"ips":[{"address":"10.0.0.2/33"}]}"#,
        r#"prevResult.ips[0].address is "10.0.0.2/33""#,
    ),
    (
        r#"{"ips":[{"address":"10.0.0.2/-1"}]}"#,
        r#"prevResult.ips[0].address is "10.0.0.2/-1""#,
    ),
    (
        r#"{"ips":[{"address":"10.0.0.2/+8"}]}"#,
        r#"prevResult.ips[0].address is "10.0.0.2/+8""#,
    ),
    (
        r#"{"ips":[{"address":"10.0.0.2/8/8"}]}"#,
        r#"prevResult.ips[0].address is "10.0.0.2/8/8""#,
    ),
    (
        r#"{"ips":[{"address":"10.0.0.02/8"}]}"#,
        r#"prevResult.ips[0].address is "10.0.0.02/8""#,
    ),
    (
        r#"{"ips":[{"address":" 10.0.0.2/8"}]}"#,
        r#"prevResult.ips[0].address is " 10.0.0.2/8""#,
    ),
    (
        r#"{"ips":[{"address":"fd00::2/129"}]}"#,
        r#"prevResult.ips[0].address is "fd00::2/129""#,
    ),
    (
        r#"{"ips":[{"address":"fe80::2%eth0/64"}]}"#,
        r#"prevResult.ips[0].address is "fe80::2%eth0/64""#,
    ),
    (
        r#"{"ips":[{"address":"\ud800"}]}"#,
        r"prevResult.ips[0].address is",
    ),
    (
        r#"{"ips":[{"gateway":7}]}"#,
        "prevResult.ips[0].gateway is 7, which is not an IP address",
    ),
    (
        r#"{"ips":[{"gateway":"10.0.0"}]}"#,
        r#"prevResult.ips[0].gateway is "10.0.0""#,
    ),
    (
        r#"{"ips":[{"gateway":"10.0.0.1/24"}]}"#,
        r#"prevResult.ips[0].gateway is "10.0.0.1/24""#,
    ),
    (
        r#"{"ips":[{"gateway":"fe80::1%eth0"}]}"#,
        r#"prevResult.ips[0].gateway is "fe80::1%eth0""#,
    ),
    (
        r#"{"ips":[{"interface":1.0}]}"#,
        "prevResult.ips[0].interface is 1.0, which is not an integer",
    ),
    (
        r#"{"ips":[{"interface":1e0}]}"#,
        "prevResult.ips[0].interface is 1e0",
    ),
    (
        r#"{"ips":[{"interface":"0"}]}"#,
        r#"prevResult.ips[0].interface is "0""#,
    ),
    (
        r#"{"ips":[{"interface":true}]}"#,
        "prevResult.ips[0].interface is true",
    ),
    (
        r#"{"ips":[{"interface":[0]}]}"#,
        "prevResult.ips[0].interface is an array",
    ),
    (
        r#"{"ips":[{"interface":9223372036854775808}]}"#,
        "prevResult.ips[0].interface is 9223372036854775808",
    ),
    (
        r#"{"routes":{}}"#,
        "prevResult.routes is an object, which is not a list",
    ),
    (
        r#"{"routes":["0.0.0.0/0"]}"#,
        r#"prevResult.routes[0] is "0.0.0.0/0", which is not an object"#,
    ),
    (
        r#"{"routes":[{"dst":"10.0.0.0"}]}"#,
        r#"prevResult.routes[0].dst is "10.0.0.0""#,
    ),
    (r#"{"routes":[{"dst":7}]}"#, "prevResult.routes[0].dst is 7"),
    (
        r#"{"routes":[{"gw":"gateway"}]}"#,
        r#"prevResult.routes[0].gw is "gateway""#,
    ),
    (
        r#"{"ips":[{"interface":1.5}],"ips":[]}"#,
        "prevResult.ips[0].interface is 1.5",
    ),
];

const WITH_IP_VERSION: Refused = &[
    (
        r#"{"ips":[{"version":4}]}"#,
        "prevResult.ips[0].version is 4, which is not a text",
    ),
    (
        r#"{"ips":[{"version":["4"]}]}"#,
        "prevResult.ips[0].version is an array",
    ),
];

const OF_1_1: Refused = &[
    (
        r#"{"interfaces":[{"mtu":"1500"}]}"#,
        r#"prevResult.interfaces[0].mtu is "1500", which is not an integer"#,
    ),
    (
        r#"{"interfaces":[{"mtu":1500.5}]}"#,
        "prevResult.interfaces[0].mtu is 1500.5",
    ),
    (
        r#"{"interfaces":[{"socketPath":7}]}"#,
        "prevResult.interfaces[0].socketPath is 7",
    ),
    (
        r#"{"interfaces":[{"pciID":7}]}"#,
        "prevResult.interfaces[0].pciID is 7",
    ),
    (
        r#"{"routes":[{"mtu":"1500"}]}"#,
        r#"prevResult.routes[0].mtu is "1500""#,
    ),
    (
        r#"{"routes":[{"advmss":true}]}"#,
        "prevResult.routes[0].advmss is true",
    ),
    (
        r#"{"routes":[{"priority":"1"}]}"#,
        r#"prevResult.routes[0].priority is "1""#,
    ),
    (
        r#"{"routes":[{"table":[]}]}"#,
        "prevResult.routes[0].table is an array",
    ),
    (
        r#"{"routes":[{"scope":{}}]}"#,
        "prevResult.routes[0].scope is an object",
    ),
];

#[test]
fn what_the_reference_lets_through_is_handed_on() {
    for (versions, result) in [
        (
            FAMILIES[0],
            r#"{"ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1","routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"}]},"dns":{}}"#,
        ),
        (
            FAMILIES[0],
            r#"{"ip4":null,"ip6":{"ip":"fd00::2/064","gateway":"","routes":[null,{"gw":""},{}]},"dns":null}"#,
        ),
        (
            FAMILIES[0],
            r#"{"ip4":{},"ips":"unknown here","interfaces":7,"routes":{}}"#,
        ),
        (
            FAMILIES[1],
            r#"{"ips":[{"version":"4","interface":0,"address":"10.0.0.2/24","gateway":"10.0.0.1"}],"ip4":"unknown here"}"#,
        ),
        (
            FAMILIES[1],
            r#"{"ips":[{"version":"6","address":"fd00::2/64"},{"version":""},{"version":null}]}"#,
        ),
        (
            FAMILIES[1],
            r#"{"interfaces":[{"name":"eth0","mtu":"unknown here","pciID":7}],"routes":[{"table":"unknown here"}]}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"interfaces":null,"ips":null,"routes":null,"dns":null}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"interfaces":[],"ips":[],"routes":[],"dns":{}}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"interfaces":[null,{}],"ips":[null,{}],"routes":[null,{}],"dns":{"nameservers":[null]}}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"interfaces":[{"name":"","mac":null,"sandbox":"not checked"}]}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"ips":[{"interface":null,"address":"10.0.0.2/024","gateway":""}]}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"ips":[{"interface":99,"address":"::ffff:10.0.0.2/128","gateway":null}]}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"ips":[{"address":"\u0031\u0030.0.0.2\/8","gateway":"1:2:3:4:5:6:7::"}]}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"ips":[{"interface":9223372036854775807},{"interface":-0}]}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"routes":[{"dst":"0.0.0.0/0","gw":""},{"dst":"::/0"},{"gw":"fe80::1"}]}"#,
        ),
        (
            &["0.3.1", "1.0.0", "1.1.0"],
            r#"{"dns":{"nameservers":["not checked"],"domain":null,"search":null,"options":[]}}"#,
        ),
        (
            &["1.0.0", "1.1.0"],
            r#"{"ips":[{"version":4,"address":"10.0.0.2/24"}]}"#,
        ),
        (
            &["1.0.0"],
            r#"{"interfaces":[{"mtu":"unknown here"}],"routes":[{"mtu":"unknown here"}]}"#,
        ),
        (
            &["1.1.0"],
            r#"{"interfaces":[{"name":"a","mtu":1500,"socketPath":"/s","pciID":"0000:00:1f.6"},{"mtu":null}]}"#,
        ),
        (
            &["1.1.0"],
            r#"{"routes":[{"dst":"10.0.0.0/8","mtu":1400,"advmss":-1,"priority":0,"table":254,"scope":253}]}"#,
        ),
    ] {
        for version in versions {
            let labelled = result.replacen('{', &format!("{{\"cniVersion\":\"{version}\","), 1);
            let input = with_result(version, &labelled);
            assert_eq!(
                ask("ADD", &input).succeeded().stdout,
                labelled.clone() + "\n"
            );
            if *version >= "0.4.0" {
                assert_eq!(ask("CHECK", &input).succeeded().stdout, "");
            }
        }
    }
}
