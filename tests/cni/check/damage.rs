//! Every kind of damage to a redirect, and the sentence that names it: which chain, which
//! rule, what was found and what was wanted.

use msm_testkit::backend::Backend;
use msm_testkit::netns::Namespace;
use msm_testkit::on_every_backend;
use serde_json::{Value, json};

use super::sandbox::Sandbox;

/// What uses every rule and every chain there is.
fn everything() -> Value {
    json!({"redirect": {
        "ports": [554, 1554], "inboundPorts": [554], "ipv6": "reject",
        "excludeCIDRs": ["127.0.0.0/8", "10.9.0.0/16", "fd09::/16"],
    }})
}

/// Commands of nft, where `#N` is the handle of the chain's Nth rule; and the difference.
const NFT: [(&str, &str); 51] = [
    // Tables and chains.
    (
        "delete table inet msm_cni",
        "there is no redirect at all: table inet msm_cni is missing",
    ),
    (
        "flush ruleset",
        "there is no redirect at all: table inet msm_cni is missing",
    ),
    (
        "delete table inet msm_cni
         add table inet msm_cni",
        "chain inet msm_cni output is missing",
    ),
    (
        "delete chain inet msm_cni output",
        "chain inet msm_cni output is missing",
    ),
    (
        "delete chain inet msm_cni prerouting",
        "chain inet msm_cni prerouting is missing",
    ),
    (
        "delete chain inet msm_cni reject_input",
        "chain inet msm_cni reject_input is missing",
    ),
    (
        "add chain inet msm_cni another",
        "chain inet msm_cni another should not be there",
    ),
    (
        "add chain inet msm_cni another { type nat hook output priority -102; }
         add rule inet msm_cni another tcp dport 554 accept",
        "chain inet msm_cni another should not be there",
    ),
    (
        "rename chain inet msm_cni output outputs",
        "chain inet msm_cni output is missing",
    ),
    (
        "add table ip msm_cni",
        "table ip msm_cni should not be there",
    ),
    (
        "add table ip6 msm_cni
         add chain ip6 msm_cni output { type nat hook output priority -101; }",
        "table ip6 msm_cni should not be there",
    ),
    (
        "add table inet msm_cni { flags dormant; }",
        "table inet msm_cni has `flags dormant` instead of `no flags`",
    ),
    (
        "add chain inet msm_cni output { policy drop; }",
        "chain inet msm_cni output has `type nat hook output priority -101; policy drop;` \
         instead of `type nat hook output priority -101; policy accept;`",
    ),
    (
        "delete chain inet msm_cni prerouting
         add chain inet msm_cni prerouting { type nat hook prerouting priority -100; }",
        "chain inet msm_cni prerouting has `type nat hook prerouting priority -100; policy accept;` \
         instead of `type nat hook prerouting priority -101; policy accept;`",
    ),
    (
        "delete chain inet msm_cni reject_input
         add chain inet msm_cni reject_input { type filter hook forward priority 0; }",
        "chain inet msm_cni reject_input has `type filter hook forward priority 0; policy accept;` \
         instead of `type filter hook input priority 0; policy accept;`",
    ),
    (
        "delete chain inet msm_cni output
         add chain inet msm_cni output { type filter hook output priority -101; }",
        "chain inet msm_cni output has `type filter hook output priority -101; policy accept;` \
         instead of `type nat hook output priority -101; policy accept;`",
    ),
    (
        "delete chain inet msm_cni output
         add chain inet msm_cni output",
        "chain inet msm_cni output is attached nowhere: \
         `type nat hook output priority -101; policy accept;` is missing",
    ),
    // Rules that are not there.
    (
        "flush table inet msm_cni",
        "rule 1 of chain inet msm_cni output is missing: `meta nfproto ipv6 return`",
    ),
    (
        "flush chain inet msm_cni reject_output",
        "rule 1 of chain inet msm_cni reject_output is missing: `meta nfproto ipv4 return`",
    ),
    (
        "delete rule inet msm_cni output #1",
        "rule 1 of chain inet msm_cni output is `ip daddr 127.0.0.0/8 return` \
         instead of `meta nfproto ipv6 return`",
    ),
    (
        "delete rule inet msm_cni output #3",
        "rule 3 of chain inet msm_cni output is `meta skuid 1337 return` \
         instead of `ip daddr 10.9.0.0/16 return`",
    ),
    (
        "delete rule inet msm_cni output #6",
        "rule 6 of chain inet msm_cni output is missing: \
         `tcp dport 1554 counter redirect to :8554`",
    ),
    (
        "delete rule inet msm_cni reject_input #3",
        "rule 3 of chain inet msm_cni reject_input is missing: \
         `tcp dport 554 tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset`",
    ),
    // Rules too many.
    (
        "insert rule inet msm_cni output tcp dport 22 return",
        "rule 1 of chain inet msm_cni output is `tcp dport 22 return` \
         instead of `meta nfproto ipv6 return`",
    ),
    (
        "add rule inet msm_cni output #3 tcp dport 22 return",
        "rule 4 of chain inet msm_cni output is `tcp dport 22 return` \
         instead of `meta skuid 1337 return`",
    ),
    (
        "add rule inet msm_cni output tcp dport 22 return",
        "rule 7 of chain inet msm_cni output should not be there: `tcp dport 22 return`",
    ),
    (
        "add rule inet msm_cni prerouting tcp dport 554 counter redirect to :8554",
        "rule 3 of chain inet msm_cni prerouting should not be there: \
         `tcp dport 554 counter redirect to :8554`",
    ),
    // Rules that say something else.
    (
        "replace rule inet msm_cni output #5 tcp dport 554 counter redirect to :8555",
        "rule 5 of chain inet msm_cni output is `tcp dport 554 counter redirect to :8555` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #6 tcp dport 1555 counter redirect to :8554",
        "rule 6 of chain inet msm_cni output is `tcp dport 1555 counter redirect to :8554` \
         instead of `tcp dport 1554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni prerouting #2 tcp dport 554 counter redirect to :8555",
        "rule 2 of chain inet msm_cni prerouting is `tcp dport 554 counter redirect to :8555` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #4 meta skuid 1338 return",
        "rule 4 of chain inet msm_cni output is `meta skuid 1338 return` \
         instead of `meta skuid 1337 return`",
    ),
    (
        "replace rule inet msm_cni output #3 ip daddr 10.8.0.0/16 return",
        "rule 3 of chain inet msm_cni output is `ip daddr 10.8.0.0/16 return` \
         instead of `ip daddr 10.9.0.0/16 return`",
    ),
    (
        "replace rule inet msm_cni output #3 ip daddr 10.9.0.0/17 return",
        "rule 3 of chain inet msm_cni output is `ip daddr 10.9.0.0/17 return` \
         instead of `ip daddr 10.9.0.0/16 return`",
    ),
    (
        "replace rule inet msm_cni reject_output #2 ip6 daddr fd09::/17 return",
        "rule 2 of chain inet msm_cni reject_output is `ip6 daddr fd09::/17 return` \
         instead of `ip6 daddr fd09::/16 return`",
    ),
    (
        "add rule inet msm_cni output #3 ip daddr 127.0.0.0/8 return
         delete rule inet msm_cni output #2",
        "rule 2 of chain inet msm_cni output is `ip daddr 10.9.0.0/16 return` \
         instead of `ip daddr 127.0.0.0/8 return`",
    ),
    (
        "replace rule inet msm_cni reject_output #5 tcp dport 554 counter reject with tcp reset",
        "rule 5 of chain inet msm_cni reject_output is `tcp dport 554 counter reject with tcp reset` \
         instead of `tcp dport 554 tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset`",
    ),
    // Rules that look alike.
    (
        "replace rule inet msm_cni output #5 tcp dport 554 counter redirect to :8554 comment \"mine\"",
        "rule 5 of chain inet msm_cni output is `tcp dport 554 counter redirect to :8554 comment \"mine\"` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #5 tcp dport { 554, 1554 } counter redirect to :8554
         delete rule inet msm_cni output #6",
        "rule 5 of chain inet msm_cni output is `[meta load 16] [cmp eq 0x06] \
         [payload load 2b @ header 2 + 2] [another lookup] [counter] [immediate 0x216a] [redir]` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #5 tcp dport 554 counter redirect to :8554 random",
        "rule 5 of chain inet msm_cni output is `[meta load 16] [cmp eq 0x06] \
         [payload load 2b @ header 2 + 2] [cmp eq 0x022a] [counter] [immediate 0x216a] [another redir]` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #5 tcp dport != 554 counter redirect to :8554",
        "rule 5 of chain inet msm_cni output is `[meta load 16] [cmp eq 0x06] \
         [payload load 2b @ header 2 + 2] [another cmp] [counter] [immediate 0x216a] [redir]` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #5 udp dport 554 counter redirect to :8554",
        "rule 5 of chain inet msm_cni output is `[meta load 16] [cmp eq 0x11] \
         [payload load 2b @ header 2 + 2] [cmp eq 0x022a] [counter] [immediate 0x216a] [redir]` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #5 tcp sport 554 counter redirect to :8554",
        "rule 5 of chain inet msm_cni output is `[meta load 16] [cmp eq 0x06] \
         [payload load 2b @ header 2 + 0] [cmp eq 0x022a] [counter] [immediate 0x216a] [redir]` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #5 tcp dport 554 redirect to :8554",
        "rule 5 of chain inet msm_cni output is `[meta load 16] [cmp eq 0x06] \
         [payload load 2b @ header 2 + 2] [cmp eq 0x022a] [immediate 0x216a] [redir]` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #5 tcp dport 554 counter redirect to :8554-8555",
        "rule 5 of chain inet msm_cni output is `[meta load 16] [cmp eq 0x06] \
         [payload load 2b @ header 2 + 2] [cmp eq 0x022a] [counter] [immediate 0x216a] \
         [another immediate] [another redir]` \
         instead of `tcp dport 554 counter redirect to :8554`",
    ),
    (
        "replace rule inet msm_cni output #2 ip daddr != 127.0.0.0/8 return",
        "rule 2 of chain inet msm_cni output is `[meta load 15] [cmp eq 0x02] \
         [payload load 1b @ header 1 + 16] [another cmp] [return]` \
         instead of `ip daddr 127.0.0.0/8 return`",
    ),
    (
        "replace rule inet msm_cni output #2 ip saddr 127.0.0.0/8 return",
        "rule 2 of chain inet msm_cni output is `[meta load 15] [cmp eq 0x02] \
         [payload load 1b @ header 1 + 12] [cmp eq 0x7f] [return]` \
         instead of `ip daddr 127.0.0.0/8 return`",
    ),
    (
        "replace rule inet msm_cni output #1 meta nfproto ipv6 accept",
        "rule 1 of chain inet msm_cni output is `[meta load 15] [cmp eq 0x0a] [accept]` \
         instead of `meta nfproto ipv6 return`",
    ),
    (
        "add chain inet msm_cni theirs
         replace rule inet msm_cni output #1 meta nfproto ipv6 jump theirs",
        "rule 1 of chain inet msm_cni output is `[meta load 15] [cmp eq 0x0a] [jump theirs]` \
         instead of `meta nfproto ipv6 return`",
    ),
    (
        "add chain inet msm_cni theirs
         replace rule inet msm_cni output #1 meta nfproto ipv6 goto theirs",
        "rule 1 of chain inet msm_cni output is `[meta load 15] [cmp eq 0x0a] [goto theirs]` \
         instead of `meta nfproto ipv6 return`",
    ),
    (
        "replace rule inet msm_cni output #1 meta nfproto ipv6 drop",
        "rule 1 of chain inet msm_cni output is `[meta load 15] [cmp eq 0x0a] [drop]` \
         instead of `meta nfproto ipv6 return`",
    ),
    (
        "replace rule inet msm_cni reject_input #2 iifname \"lo\" return",
        "rule 2 of chain inet msm_cni reject_input is `[meta load 6] \
         [cmp eq 0x6c6f0000000000000000000000000000] [return]` \
         instead of `iif \"lo\" return`",
    ),
];

/// The family, the table and lines of `iptables-restore`; and the difference. `TOOL` is the
/// family's command.
const IPTABLES: [(Family, &str, &str, &str); 36] = [
    // Chains.
    (
        V4,
        "nat",
        "-F OUTPUT\n-F PREROUTING\n-F MSM_CNI_OUTPUT\n-X MSM_CNI_OUTPUT\n\
         -F MSM_CNI_PREROUTING\n-X MSM_CNI_PREROUTING",
        "chain MSM_CNI_OUTPUT of TOOL's table nat is missing",
    ),
    (
        V4,
        "nat",
        "-F OUTPUT\n-F MSM_CNI_OUTPUT\n-X MSM_CNI_OUTPUT",
        "chain MSM_CNI_OUTPUT of TOOL's table nat is missing",
    ),
    (
        V4,
        "nat",
        "-F PREROUTING\n-F MSM_CNI_PREROUTING\n-X MSM_CNI_PREROUTING",
        "chain MSM_CNI_PREROUTING of TOOL's table nat is missing",
    ),
    (
        V6,
        "filter",
        "-F OUTPUT\n-F MSM_CNI_REJECT_OUTPUT\n-X MSM_CNI_REJECT_OUTPUT",
        "chain MSM_CNI_REJECT_OUTPUT of TOOL's table filter is missing",
    ),
    (
        V4,
        "nat",
        "-N MSM_CNI_ANOTHER",
        "chain MSM_CNI_ANOTHER of TOOL's table nat should not be there",
    ),
    (
        V4,
        "filter",
        "-N MSM_CNI_REJECT_OUTPUT\n-A OUTPUT -j MSM_CNI_REJECT_OUTPUT",
        "chain MSM_CNI_REJECT_OUTPUT of TOOL's table filter should not be there",
    ),
    (
        V6,
        "nat",
        "-N MSM_CNI_OUTPUT",
        "chain MSM_CNI_OUTPUT of TOOL's table nat should not be there",
    ),
    // Jumps.
    (
        V4,
        "nat",
        "-F OUTPUT",
        "chain MSM_CNI_OUTPUT of TOOL's table nat is attached nowhere: \
         `-A OUTPUT -j MSM_CNI_OUTPUT` is missing",
    ),
    (
        V6,
        "filter",
        "-D INPUT -j MSM_CNI_REJECT_INPUT",
        "chain MSM_CNI_REJECT_INPUT of TOOL's table filter is attached nowhere: \
         `-A INPUT -j MSM_CNI_REJECT_INPUT` is missing",
    ),
    (
        V4,
        "nat",
        "-A OUTPUT -j MSM_CNI_OUTPUT",
        "chain MSM_CNI_OUTPUT of TOOL's table nat has \
         `-A OUTPUT -j MSM_CNI_OUTPUT` and `-A OUTPUT -j MSM_CNI_OUTPUT` \
         instead of `-A OUTPUT -j MSM_CNI_OUTPUT`",
    ),
    (
        V4,
        "nat",
        "-R OUTPUT 1 -p tcp -j MSM_CNI_OUTPUT",
        "chain MSM_CNI_OUTPUT of TOOL's table nat has `-A OUTPUT -p tcp -j MSM_CNI_OUTPUT` \
         instead of `-A OUTPUT -j MSM_CNI_OUTPUT`",
    ),
    (
        V4,
        "nat",
        "-R OUTPUT 1 -g MSM_CNI_OUTPUT",
        "chain MSM_CNI_OUTPUT of TOOL's table nat has `-A OUTPUT -g MSM_CNI_OUTPUT` \
         instead of `-A OUTPUT -j MSM_CNI_OUTPUT`",
    ),
    (
        V4,
        "nat",
        "-F OUTPUT\n-N THEIRS\n-A OUTPUT -j THEIRS\n-A THEIRS -j MSM_CNI_OUTPUT",
        "chain MSM_CNI_OUTPUT of TOOL's table nat has `-A THEIRS -j MSM_CNI_OUTPUT` \
         instead of `-A OUTPUT -j MSM_CNI_OUTPUT`",
    ),
    // Rules that are not there.
    (
        V4,
        "nat",
        "-F MSM_CNI_OUTPUT",
        "rule 1 of chain MSM_CNI_OUTPUT of TOOL's table nat is missing: \
         `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-D MSM_CNI_OUTPUT 1",
        "rule 1 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -d 10.9.0.0/16 -j RETURN` \
         instead of `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-D MSM_CNI_OUTPUT 3",
        "rule 3 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554` \
         instead of `-A MSM_CNI_OUTPUT -m owner --uid-owner 1337 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-D MSM_CNI_OUTPUT 5",
        "rule 5 of chain MSM_CNI_OUTPUT of TOOL's table nat is missing: \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 1554 -j REDIRECT --to-ports 8554`",
    ),
    (
        V6,
        "filter",
        "-D MSM_CNI_REJECT_INPUT 2",
        "rule 2 of chain MSM_CNI_REJECT_INPUT of TOOL's table filter is missing: \
         `-A MSM_CNI_REJECT_INPUT -p tcp -m tcp --dport 554 --tcp-flags FIN,SYN,RST,ACK SYN \
         -j REJECT --reject-with tcp-reset`",
    ),
    // Rules too many.
    (
        V4,
        "nat",
        "-I MSM_CNI_OUTPUT 1 -p tcp -m tcp --dport 22 -j RETURN",
        "rule 1 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 22 -j RETURN` \
         instead of `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-I MSM_CNI_OUTPUT 3 -p tcp -m tcp --dport 22 -j RETURN",
        "rule 3 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 22 -j RETURN` \
         instead of `-A MSM_CNI_OUTPUT -m owner --uid-owner 1337 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 22 -j RETURN",
        "rule 6 of chain MSM_CNI_OUTPUT of TOOL's table nat should not be there: \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 22 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-A MSM_CNI_OUTPUT -j MSM_CNI_PREROUTING",
        "rule 6 of chain MSM_CNI_OUTPUT of TOOL's table nat should not be there: \
         `-A MSM_CNI_OUTPUT -j MSM_CNI_PREROUTING`",
    ),
    // Rules that say something else.
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 4 -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8555",
        "rule 4 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8555` \
         instead of `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 5 -p tcp -m tcp --dport 1555 -j REDIRECT --to-ports 8554",
        "rule 5 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 1555 -j REDIRECT --to-ports 8554` \
         instead of `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 1554 -j REDIRECT --to-ports 8554`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 3 -m owner --uid-owner 1338 -j RETURN",
        "rule 3 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -m owner --uid-owner 1338 -j RETURN` \
         instead of `-A MSM_CNI_OUTPUT -m owner --uid-owner 1337 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 2 -d 10.9.0.0/17 -j RETURN",
        "rule 2 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -d 10.9.0.0/17 -j RETURN` \
         instead of `-A MSM_CNI_OUTPUT -d 10.9.0.0/16 -j RETURN`",
    ),
    (
        V6,
        "filter",
        "-R MSM_CNI_REJECT_OUTPUT 1 -d fd08::/16 -j RETURN",
        "rule 1 of chain MSM_CNI_REJECT_OUTPUT of TOOL's table filter is \
         `-A MSM_CNI_REJECT_OUTPUT -d fd08::/16 -j RETURN` \
         instead of `-A MSM_CNI_REJECT_OUTPUT -d fd09::/16 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-D MSM_CNI_OUTPUT 1\n-I MSM_CNI_OUTPUT 2 -d 127.0.0.0/8 -j RETURN",
        "rule 1 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -d 10.9.0.0/16 -j RETURN` \
         instead of `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 1 -d 127.0.0.0/8 -j ACCEPT",
        "rule 1 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j ACCEPT` \
         instead of `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN`",
    ),
    (
        V6,
        "filter",
        "-R MSM_CNI_REJECT_OUTPUT 4 -p tcp -m tcp --dport 554 -j REJECT --reject-with tcp-reset",
        "rule 4 of chain MSM_CNI_REJECT_OUTPUT of TOOL's table filter is \
         `-A MSM_CNI_REJECT_OUTPUT -p tcp -m tcp --dport 554 -j REJECT --reject-with tcp-reset` \
         instead of `-A MSM_CNI_REJECT_OUTPUT -p tcp -m tcp --dport 554 \
         --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset`",
    ),
    // Rules that look alike.
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 1 -d 127.0.0.0/8 -m comment --comment \"it is mine\" -j RETURN",
        "rule 1 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -m comment --comment \"it is mine\" -j RETURN` \
         instead of `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 4 -p tcp -m multiport --dports 554,1554 -j REDIRECT --to-ports 8554\n\
         -D MSM_CNI_OUTPUT 5",
        "rule 4 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p tcp -m multiport --dports 554,1554 -j REDIRECT --to-ports 8554` \
         instead of `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 4 -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554 --random",
        "rule 4 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554 --random` \
         instead of `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 4 -p tcp -m tcp ! --dport 554 -j REDIRECT --to-ports 8554",
        "rule 4 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p tcp -m tcp ! --dport 554 -j REDIRECT --to-ports 8554` \
         instead of `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 4 -p udp -m udp --dport 554 -j REDIRECT --to-ports 8554",
        "rule 4 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT -p udp -m udp --dport 554 -j REDIRECT --to-ports 8554` \
         instead of `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554`",
    ),
    (
        V4,
        "nat",
        "-R MSM_CNI_OUTPUT 2 ! -d 10.9.0.0/16 -j RETURN",
        "rule 2 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
         `-A MSM_CNI_OUTPUT ! -d 10.9.0.0/16 -j RETURN` \
         instead of `-A MSM_CNI_OUTPUT -d 10.9.0.0/16 -j RETURN`",
    ),
];

/// Whose rules are damaged.
#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
}
use Family::{V4, V6};

on_every_backend! {
    every_damage_is_named_and_mended,
    nothing_at_all_is_named,
    what_the_configuration_asks_for_by_now_is_named,
}

fn every_damage_is_named_and_mended(backend: Backend) {
    let sandbox = Sandbox::of(backend, everything());
    match backend {
        Backend::Nftables => {
            for (damage, difference) in NFT {
                sandbox.add();
                sandbox.inside.load(&with_handles(&sandbox.inside, damage));
                is_named(&sandbox, difference);
            }
        }
        Backend::IptablesNft | Backend::IptablesLegacy => {
            let [tool4, tool6] = backend.iptables();
            for (family, table, damage, difference) in IPTABLES {
                let tool = match family {
                    V4 => tool4,
                    V6 => tool6,
                };
                let restore = format!("{tool}-restore");
                let script = format!("*{table}\n{damage}\nCOMMIT\n");
                sandbox.add();
                let restore = sandbox.inside.tool(&restore, &["--noflush"], &script);
                restore.succeeded();
                is_named(&sandbox, &difference.replace("TOOL", tool));
            }
        }
    }
    sandbox.add();
    sandbox.passes();
}

/// Whether the backend is configured or found.
#[track_caller]
fn is_named(sandbox: &Sandbox, difference: &str) {
    sandbox.differs(difference);
    sandbox.differs_by(&everything(), difference);
}

/// Puts rules' handles in.
fn with_handles(inside: &Namespace, damage: &str) -> String {
    let args = ["--handle", "list", "table", "inet", "msm_cni"];
    let listing = inside.tool("nft", &args, "").succeeded().stdout;
    let handle = |chain: &str, number: usize| {
        let heading = format!("\tchain {chain} {{");
        let rules = listing
            .lines()
            .skip_while(|line| !line.starts_with(&heading));
        // The first two lines are the chain's name and its hook.
        let rule = rules.skip(2).nth(number - 1).unwrap();
        let (_, handle) = rule.rsplit_once(" # ").unwrap();
        handle.to_owned()
    };
    let mut before = "";
    let mut words = Vec::new();
    for word in damage.split(' ') {
        let number = word.strip_prefix('#').map(str::trim_end);
        let number = number.and_then(|number| number.parse().ok());
        words.push(number.map_or_else(|| word.to_owned(), |number| handle(before, number)));
        before = word;
    }
    words.join(" ")
}

fn nothing_at_all_is_named(backend: Backend) {
    let sandbox = Sandbox::of(backend, everything());
    let first = match backend {
        Backend::Nftables => "table inet msm_cni".to_owned(),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            let [tool, _] = backend.iptables();
            format!("chain MSM_CNI_OUTPUT of {tool}'s table nat")
        }
    };
    sandbox.differs(&format!("there is no redirect at all: {first} is missing"));
    let without_choice = "there is no redirect at all: table inet msm_cni is missing";
    sandbox.differs_by(&json!({}), without_choice);
}

fn what_the_configuration_asks_for_by_now_is_named(backend: Backend) {
    let sandbox = Sandbox::of(backend, json!({}));
    sandbox.add();
    let [tool, tool6] = backend.iptables();
    let rules = |by_nft: &str, by_iptables: &str| match backend {
        Backend::Nftables => by_nft.to_owned(),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            by_iptables.replace("TOOL6", tool6).replace("TOOL", tool)
        }
    };
    for (redirect, by_nft, by_iptables) in [
        (
            json!({"ports": [554, 1554]}),
            "rule 5 of chain inet msm_cni output is missing: \
             `tcp dport 1554 counter redirect to :8554`",
            "rule 4 of chain MSM_CNI_OUTPUT of TOOL's table nat is missing: \
             `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 1554 -j REDIRECT --to-ports 8554`",
        ),
        (
            json!({"proxyUID": 0}),
            "rule 3 of chain inet msm_cni output is `meta skuid 1337 return` \
             instead of `meta skuid 0 return`",
            "rule 2 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
             `-A MSM_CNI_OUTPUT -m owner --uid-owner 1337 -j RETURN` \
             instead of `-A MSM_CNI_OUTPUT -m owner --uid-owner 0 -j RETURN`",
        ),
        (
            json!({"excludeCIDRs": []}),
            "rule 2 of chain inet msm_cni output is `ip daddr 127.0.0.0/8 return` \
             instead of `meta skuid 1337 return`",
            "rule 1 of chain MSM_CNI_OUTPUT of TOOL's table nat is \
             `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN` \
             instead of `-A MSM_CNI_OUTPUT -m owner --uid-owner 1337 -j RETURN`",
        ),
        (
            json!({"inboundPorts": [554]}),
            "chain inet msm_cni prerouting is missing",
            "chain MSM_CNI_PREROUTING of TOOL's table nat is missing",
        ),
        (
            json!({"ipv6": "reject"}),
            "chain inet msm_cni reject_output is missing",
            "chain MSM_CNI_REJECT_OUTPUT of TOOL6's table filter is missing",
        ),
    ] {
        let mut settings = sandbox.settings.clone();
        settings["redirect"] = redirect;
        sandbox.differs_by(&settings, &rules(by_nft, by_iptables));
    }
    sandbox.passes();
}
