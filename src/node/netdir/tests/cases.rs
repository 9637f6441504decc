//! What is there, what others do to it, and what comes of that; one case after another.

use std::fs;
use std::path::PathBuf;

use super::*;

// The first file.

#[test]
fn the_first_valid_file_gets_the_entry_and_no_other() {
    for (files, expected) in [
        (
            &[("10-a.conflist", LIST), ("20-b.conflist", LIST)][..],
            "10-a.conflist",
        ),
        (
            &[("10-a.conflist", "{"), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conf", LIST), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist", SINGLE), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist", ""), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist.bak", LIST), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conf", OURS), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (&[("Z.conflist", LIST), ("a.conflist", LIST)], "Z.conflist"),
        (
            &[(".a.conflist", LIST), ("10-a.conflist", LIST)],
            ".a.conflist",
        ),
    ] {
        let mut node = Node::new(files);
        node.is_settled();
        for (name, content) in files.iter().filter(|(name, _)| *name != "10-a.conf") {
            let is_changed = node.content(name) != Some(content);
            assert_eq!(is_changed, *name == expected, "{name}\n{node}");
        }
    }
}

#[test]
fn a_new_first_file_gets_the_entry_and_the_old_one_is_as_it_was() {
    for old in [
        ("10-x.conflist", LIST),
        ("10-x.conf", SINGLE),
        ("10-x.json", SINGLE),
    ] {
        let mut node = Node::new(&[old]);
        node.is_settled();
        node.write("05-new.conflist", OTHER_LIST);
        node.is_settled();
        assert_eq!(node.content(old.0), Some(old.1), "{node}");
        assert_eq!(names(&node), ["05-new.conflist", old.0]);
        node.files.remove("05-new.conflist");
        node.is_settled();
        node.leave();
        assert_eq!(node.tree(), tree(&[old]));
    }
}

#[test]
fn without_a_network_there_is_a_reason_that_names_what_is_there() {
    for (files, flags, parts) in [
        (
            &[][..],
            &[][..],
            &["/net.d holds no valid network configuration yet"][..],
        ),
        (
            &[("10-x.conflist", "{")],
            &[],
            &["10-x.conflist cannot be used: it is not"],
        ),
        (
            &[("10-x.conf", LIST)],
            &[],
            &["10-x.conf cannot be used", "no type"],
        ),
        (
            &[("10-x.conflist", LIST), ("30-z.conf", "{")],
            &["--cni-conf-name=30-z.conf"],
            &["a valid 30-z.conf yet", "30-z.conf cannot be used"],
        ),
        (
            &[("10-x.conflist", "{")],
            &["--cni-conf-name=30-z.conf"],
            &["a valid 30-z.conf yet; waiting for the node's network plugin to write it"],
        ),
        (
            &[("10-x.conf.msm-cni-original", SINGLE)],
            &[],
            &["10-x.conflist is gone"],
        ),
    ] {
        let mut node = Node::new(files).with_flags(flags);
        let reasons = node.settle();
        one_reason(&reasons, parts);
        assert_eq!(node.tree(), tree(files));
        node.leave();
        assert_eq!(node.tree(), tree(files));
    }
}

#[test]
fn what_only_the_runtime_may_use_is_waited_for_when_it_comes_first() {
    let elsewhere =
        Unreadable::OutsideContainer("it is a symlink to /x, which is not there".into());
    let failed = Unreadable::Io("Input/output error".into());
    let nobody = Unreadable::NotAFile("it is a directory".into());
    let nameless = Ok(snapshot(br#"{"type": "bridge"}"#));
    let latin = Ok(snapshot(b"{\"name\":\"\xe4\",\"type\":\"bridge\"}"));
    for (name, file, is_waited_for) in [
        ("05-a.conflist", Err(elsewhere.clone()), true),
        ("05-a.conf", Err(failed), true),
        ("05-a.conf", nameless, true),
        ("05-a.conf", latin, true),
        ("05-a.conf", Err(nobody), false),
        ("05-a.bak", Err(elsewhere.clone()), false),
        ("30-a.conf", Err(elsewhere.clone()), false),
    ] {
        let mut node = Node::new(&[("10-x.conflist", LIST)]);
        node.files.insert(name.into(), file.clone());
        let reasons = node.settle();
        assert_eq!(reasons.len(), usize::from(is_waited_for), "{file:?}");
        assert!(
            reasons.iter().all(|reason| reason.contains(name)),
            "{reasons:?}"
        );
        // The first that we can read gets the entry all the same.
        let entry = node.content("10-x.conflist").unwrap();
        assert!(entry.contains("msm-cni"), "{node}");
    }
    // Whoever names the file knows.
    let mut node =
        Node::new(&[("10-x.conflist", LIST)]).with_flags(&["--cni-conf-name=10-x.conflist"]);
    node.files.insert("05-a.conf".into(), Err(elsewhere));
    node.settle();
    assert_eq!(node.plan().waiting, Vec::<String>::new());
}

// A `.conf` becomes a `.conflist` and comes back.

#[test]
fn a_conf_steps_aside_for_a_list_and_comes_back() {
    for name in ["10-x.conf", "10-x.json", "10-x.y.conf", r#"1 "x"\.conf"#] {
        let mut node = Node::new(&[(name, SINGLE)]);
        node.files.get_mut(name).unwrap().as_mut().unwrap().mode = 0o600;
        node.is_settled();
        let mut expected = vec![list_name(name), original_name(name)];
        expected.sort();
        assert_eq!(names(&node), expected);
        assert_eq!(node.mode(&list_name(name)), 0o600);
        node.leave();
        assert_eq!(node.tree(), tree(&[(name, SINGLE)]));
        assert_eq!(node.mode(name), 0o600);
    }
}

#[test]
fn a_change_that_is_cut_off_anywhere_comes_to_the_same_end() {
    for start in [
        &[("10-x.conf", SINGLE)][..],
        &[("10-x.json", SINGLE)],
        &[("10-x.conf", SINGLE), ("20-y.conf", OTHER_SINGLE)],
        &[("10-x.conflist", LIST)],
    ] {
        let mut whole = Node::new(start);
        whole.is_settled();
        let mut left = whole.clone();
        left.leave();
        assert_eq!(left.tree(), tree(start));
        for leaves_first in [false, true] {
            let (begin, plan) = if leaves_first {
                (whole.clone(), whole.removal())
            } else {
                (Node::new(start), Node::new(start).plan())
            };
            for cut in 0..=plan.steps.len() {
                let mut node = begin.clone();
                for step in plan.steps.iter().take(cut) {
                    node.take(&step.action);
                }
                let mut again = node.clone();
                again.is_settled();
                assert_eq!(again.tree(), whole.tree(), "{cut} of {plan:?}");
                node.leave();
                assert_eq!(node.tree(), tree(start), "{cut} of {plan:?}");
            }
        }
    }
}

#[test]
fn a_conf_that_is_written_anew_is_converted_anew() {
    for name in ["10-x.conf", "10-x.json"] {
        for anew in [SINGLE, OTHER_SINGLE] {
            let mut node = Node::new(&[(name, SINGLE)]);
            node.is_settled();
            node.write(name, anew);
            // What counts is what its owner says now.
            let removed = {
                let mut node = node.clone();
                node.leave();
                node.tree()
            };
            assert_eq!(removed, tree(&[(name, anew)]));
            let mut expected = Node::new(&[(name, anew)]);
            expected.is_settled();
            node.is_settled();
            assert_eq!(node.tree(), expected.tree());
        }
        let mut node = Node::new(&[(name, SINGLE)]);
        node.is_settled();
        let before = node.clone();
        // Half of it.
        node.write(name, "{\"name\":");
        node.is_settled();
        node.files.remove(name);
        assert_eq!(node.tree(), before.tree());
    }
}

#[test]
fn a_conf_takes_the_place_of_a_json_and_gives_it_back() {
    let (conf, json) = (("10-x.conf", SINGLE), ("10-x.json", OTHER_SINGLE));
    let mut node = Node::new(&[json]);
    node.is_settled();
    node.write(conf.0, conf.1);
    node.is_settled();
    assert_eq!(node.content(json.0), Some(json.1), "{node}");
    let mut left = node.clone();
    left.leave();
    assert_eq!(left.tree(), tree(&[conf, json]));
    // And is removed, in the form that it has now.
    node.files.remove("10-x.conflist");
    node.is_settled();
    assert_eq!(node.content("10-x.json.msm-cni-original"), Some(json.1));
}

#[test]
fn a_list_of_the_same_name_is_not_overwritten() {
    for files in [
        &[("10-x.conf", SINGLE), ("10-x.conflist", LIST)][..],
        &[("10-x.conf", SINGLE), ("10-x.conflist", "{")],
        &[
            ("10-x.conf", SINGLE),
            ("10-x.conflist", LIST),
            ("10-x.conf.msm-cni-original", OTHER_SINGLE),
        ],
        // Even if it happens to be what the `.conf` would become.
        &[
            ("10-x.conf", SINGLE),
            (
                "10-x.conflist",
                r#"{"name":"s","cniVersion":"0.3.1","plugins":[{"name":"s","cniVersion":"0.3.1","type":"bridge"}]}"#,
            ),
        ],
    ] {
        let mut node = Node::new(files);
        one_reason(
            &node.settle(),
            &["both 10-x.conf and 10-x.conflist are in /net.d"],
        );
        assert_eq!(node.tree(), tree(files));
    }
    // It was the first, and had the entry.
    let mut node = Node::new(&[("10-x.conflist", LIST)]);
    node.is_settled();
    node.write("10-x.conf", SINGLE);
    one_reason(&node.settle(), &["both"]);
    node.leave();
    assert_eq!(
        node.tree(),
        tree(&[("10-x.conf", SINGLE), ("10-x.conflist", LIST)])
    );
}

#[test]
fn what_others_have_changed_since_is_never_lost() {
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.is_settled();
    let list = node.content("10-x.conflist").unwrap();
    let evolved = list.replacen("\n  ]", ",\n    {\"type\": \"istio-cni\"}\n  ]", 1);
    node.write("10-x.conflist", &evolved);
    node.is_settled();
    let settled = node.clone();
    // Its owner writes the same once more: all of it is in the list already.
    node.write("10-x.conf", SINGLE);
    node.is_settled();
    assert_eq!(node.tree(), settled.tree());
    // And something else: nobody knows which of them is meant.
    node.write("10-x.conf", OTHER_SINGLE);
    one_reason(&node.settle(), &["both 10-x.conf and 10-x.conflist"]);
    node.files.remove("10-x.conf");

    let RemovalPlan { notes, .. } = node.leave();
    one_reason(
        &notes,
        &["10-x.conf.msm-cni-original stays", "10-x.conflist"],
    );
    assert_eq!(
        names(&node),
        ["10-x.conf.msm-cni-original", "10-x.conflist"]
    );
    let left = node.network(Runtime::Crio).unwrap();
    assert_eq!(left.plugins.len(), 2);
    assert_eq!(left.plugins[1]["type"], "istio-cni");
    assert_eq!(node.content("10-x.conf.msm-cni-original"), Some(SINGLE));
}

#[test]
fn what_others_have_removed_stays_removed() {
    // The original: then the list is all there is.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.is_settled();
    let networks = node.networks();
    node.files.remove("10-x.conf.msm-cni-original");
    node.is_settled();
    node.leave();
    assert_eq!(names(&node), ["10-x.conflist"]);
    assert_eq!(node.networks(), networks);

    // The list: then the network is gone, and only its owner may bring it back.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.is_settled();
    node.files.remove("10-x.conflist");
    one_reason(
        &node.settle(),
        &["10-x.conflist is gone", "10-x.conf.msm-cni-original"],
    );
    let mut left = node.clone();
    one_reason(&left.leave().notes, &["10-x.conf.msm-cni-original stays"]);
    assert_eq!(left.tree(), tree(&[("10-x.conf.msm-cni-original", SINGLE)]));
    node.write("20-y.conflist", LIST);
    node.is_settled();
    node.write("10-x.conf", OTHER_SINGLE);
    node.is_settled();
    node.leave();
    assert_eq!(
        node.tree(),
        tree(&[("10-x.conf", OTHER_SINGLE), ("20-y.conflist", LIST)])
    );

    // Our entry, just before we leave.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.is_settled();
    let network = r#"{"name":"s","cniVersion":"0.3.1","plugins":[{"type":"bridge","name":"s","cniVersion":"0.3.1"}]}"#;
    node.write("10-x.conflist", network);
    node.leave();
    assert_eq!(node.tree(), tree(&[("10-x.conf", SINGLE)]));
}

#[test]
fn a_list_that_would_come_too_late_is_not_made() {
    // Between the name of the `.conf` and that of its list. Over one that is not valid
    // containerd would stumble.
    for other in [LIST, "{"] {
        let files = [("10-x.conf", SINGLE), ("10-x.conf-b.conflist", other)];
        let mut node = Node::new(&files);
        one_reason(
            &node.settle(),
            &["10-x.conf takes one plugin only", "10-x.conf-b.conflist"],
        );
        assert_eq!(node.tree(), tree(&files));
        let mut node = Node::new(&files[..1]);
        node.is_settled();
        node.write(files[1].0, files[1].1);
        one_reason(&node.settle(), &["10-x.conf takes one plugin only"]);
        assert_eq!(node.tree(), tree(&files));
    }

    // A `.json` becomes a list that comes before it; what is between them comes first.
    let files = [("10-x.json", SINGLE), ("10-x.d.conflist", LIST)];
    let mut node = Node::new(&files[..1]);
    node.is_settled();
    node.write(files[1].0, files[1].1);
    node.is_settled();
    assert_eq!(node.content("10-x.json"), Some(SINGLE), "{node}");
    node.leave();
    assert_eq!(node.tree(), tree(&files));
}

// Names, modes, tokens.

#[test]
fn a_file_that_is_named_gets_the_entry() {
    let list = ("10-x.conflist", LIST);
    let single = ("10-x.conf", SINGLE);
    let first = ("00-first.conflist", OTHER_LIST);
    for (files, wanted, expected) in [
        (&[first, list][..], "10-x.conflist", "10-x.conflist"),
        (&[first, single], "10-x.conf", "10-x.conflist"),
        // What it has become, or will become.
        (&[first, list], "10-x.conf", "10-x.conflist"),
        (&[first, single], "10-x.conflist", "10-x.conflist"),
        (
            &[first, ("10-x.json", SINGLE)],
            "10-x.json",
            "10-x.conflist",
        ),
    ] {
        let flag = format!("--cni-conf-name={wanted}");
        let mut node = Node::new(files).with_flags(&[&flag]);
        assert_eq!(node.settle(), Vec::<String>::new());
        assert!(
            node.content(expected).unwrap().contains("msm-cni"),
            "{node}"
        );
        assert_eq!(node.content(first.0), Some(first.1));
        node.leave();
        assert_eq!(node.tree(), tree(files));
    }
    // Written anew by its owner.
    let mut node = Node::new(&[single]).with_flags(&["--cni-conf-name=10-x.conf"]);
    node.is_settled();
    node.write("10-x.conf", OTHER_SINGLE);
    node.is_settled();
    node.leave();
    assert_eq!(node.tree(), tree(&[("10-x.conf", OTHER_SINGLE)]));
    // Another name, later: the entry moves when the file is there.
    let mut node = Node::new(&[first, list]);
    node.is_settled();
    let before = node.tree();
    node.flags = vec!["--cni-conf-name=30-z.conflist".into()];
    one_reason(&node.settle(), &["30-z.conflist"]);
    assert_eq!(node.tree(), before);
    node.write("30-z.conflist", LIST);
    assert_eq!(node.settle(), Vec::<String>::new());
    assert_eq!(node.content(first.0), Some(first.1));
    node.leave();
    assert_eq!(node.tree(), tree(&[first, list, ("30-z.conflist", LIST)]));
}

#[test]
fn stand_alone_is_a_file_of_its_own_beside_all_others() {
    let others = [("10-x.conflist", LIST), ("20-y.conf", SINGLE)];
    for (flags, name) in [
        (&["--chained-cni-plugin=false"][..], "YYY-msm-cni.conf"),
        (
            &["--chained-cni-plugin=false", "--cni-conf-name=30-m.conf"],
            "30-m.conf",
        ),
        (
            &["--chained-cni-plugin=false", "--cni-conf-name=30-m.json"],
            "30-m.json",
        ),
        (
            &[
                "--chained-cni-plugin=false",
                "--cni-conf-name=00-m.conflist",
            ],
            "00-m.conflist",
        ),
    ] {
        let mut node = Node::new(&others).with_flags(flags);
        assert_eq!(node.settle(), Vec::<String>::new());
        let alone = Node::new(&[(name, node.content(name).unwrap())]);
        for runtime in Runtime::ALL {
            let network = alone.network(runtime).unwrap();
            assert!(
                network.ends_with_us() && network.plugins.len() == 1,
                "{node}"
            );
            assert_eq!(
                (network.name.as_str(), network.version.as_str()),
                ("msm-cni", "1.0.0")
            );
        }
        for (other, content) in others {
            assert_eq!(node.content(other), Some(content));
        }
        // Somebody has changed it, or broken it under the name that is ours.
        let right = node.tree();
        let other = node.content(name).unwrap().replace("info", "trace");
        node.write(name, &other);
        assert_eq!(node.settle(), Vec::<String>::new());
        assert_eq!(node.tree(), right);
        node.files.get_mut(name).unwrap().as_mut().unwrap().mode = 0o666;
        node.settle();
        assert_eq!(node.mode(name), 0o644);
        node.leave();
        assert_eq!(node.tree(), tree(&others));
    }
    let mut node =
        Node::new(&[("YYY-msm-cni.conf", "{")]).with_flags(&["--chained-cni-plugin=false"]);
    assert_eq!(node.settle(), Vec::<String>::new());
}

#[test]
fn stand_alone_never_takes_somebody_elses_file() {
    let flags = [
        "--chained-cni-plugin=false",
        "--cni-conf-name=10-x.conflist",
    ];
    for content in [LIST, "", "{\"name\":", SINGLE] {
        let mut node = Node::new(&[("10-x.conflist", content)]).with_flags(&flags);
        one_reason(
            &node.settle(),
            &["/net.d/10-x.conflist is somebody else's", "--cni-conf-name"],
        );
        assert_eq!(node.content("10-x.conflist"), Some(content));
    }
    let default = ["--chained-cni-plugin=false"];
    let mut node = Node::new(&[("YYY-msm-cni.conf", SINGLE)]).with_flags(&default);
    one_reason(&node.settle(), &["YYY-msm-cni.conf is somebody else's"]);
    assert_eq!(node.content("YYY-msm-cni.conf"), Some(SINGLE));
}

#[test]
fn another_mode_leaves_nothing_of_the_one_before() {
    let alone = ["--chained-cni-plugin=false"];
    for files in [
        &[("10-x.conflist", LIST)][..],
        &[("10-x.conf", SINGLE)],
        &[("10-x.json", SINGLE), ("20-y.conflist", LIST)],
    ] {
        let mut chained = Node::new(files);
        chained.is_settled();
        let expected = chained.tree();
        let mut node = chained.with_flags(&alone);
        assert_eq!(node.settle(), Vec::<String>::new());
        node.files.remove("YYY-msm-cni.conf");
        assert_eq!(node.tree(), tree(files));
        node.settle();
        let mut node = node.with_flags(&[]);
        node.is_settled();
        assert_eq!(node.tree(), expected);
    }
    // Nothing to chain to: a plugin by itself is no network.
    let mut node = Node::new(&[]).with_flags(&alone);
    node.settle();
    let mut node = node.with_flags(&[]);
    one_reason(&node.settle(), &["no valid network configuration"]);
    assert_eq!(names(&node), Vec::<String>::new());
}

#[test]
fn a_token_in_the_entry_is_nobody_elses_business() {
    let template =
        r#"--cni-network-config={"name":"m","type":"msm-cni","token":"__SERVICEACCOUNT_TOKEN__"}"#;
    for name in ["10-x.conflist", "10-x.conf"] {
        let content = if name == "10-x.conf" { SINGLE } else { LIST };
        let mut node = Node::new(&[(name, content)]).with_flags(&[template]);
        node.is_settled();
        let list = "10-x.conflist";
        assert!(node.content(list).unwrap().contains("first.token"));
        assert_eq!(node.mode(list), 0o600);
        // Rotated: not a fight.
        node.token = "second.token";
        let steps = node.plan().steps;
        assert!(
            !steps.is_empty() && steps.iter().all(|step| step.cause == Cause::Renewal),
            "{steps:?}"
        );
        node.is_settled();
        assert!(node.content(list).unwrap().contains("second.token"));
        // Opened by somebody, which is one.
        node.files.get_mut(list).unwrap().as_mut().unwrap().mode = 0o644;
        node.is_settled();
        assert_eq!(node.mode(list), 0o600);
        node.leave();
        assert_eq!(node.tree(), tree(&[(name, content)]));
    }
    let mut node = Node::new(&[]).with_flags(&[template, "--chained-cni-plugin=false"]);
    node.settle();
    assert_eq!(node.mode("YYY-msm-cni.conf"), 0o600);
    node.token = "second.token";
    let steps = node.plan().steps;
    assert!(
        !steps.is_empty() && steps.iter().all(|step| step.cause == Cause::Renewal),
        "{steps:?}"
    );
    // None in it: as it was.
    let mut node = Node::new(&[("10-x.conflist", LIST)]);
    node.files
        .get_mut("10-x.conflist")
        .unwrap()
        .as_mut()
        .unwrap()
        .mode = 0o664;
    node.is_settled();
    assert_eq!(node.mode("10-x.conflist"), 0o664);
}

#[test]
fn a_file_of_others_keeps_its_owner() {
    let owner = Owner { uid: 7, gid: 8 };
    for name in ["10-x.conflist", "10-x.conf"] {
        let content = if name == "10-x.conf" { SINGLE } else { LIST };
        let mut node = Node::new(&[(name, content)]);
        node.files.get_mut(name).unwrap().as_mut().unwrap().owner = owner;
        node.is_settled();
        assert_eq!(node.files["10-x.conflist"].as_ref().unwrap().owner, owner);
        node.leave();
        assert_eq!(node.files[name].as_ref().unwrap().owner, owner);
    }
}

#[test]
fn as_long_as_an_entry_may_be_left_so_is_what_it_needs() {
    for (name, file, stays) in [
        (
            "20-y.conflist",
            Ok(snapshot(b"{\"plugins\":[{\"type\":\"msm-cni\"")),
            true,
        ),
        (
            "20-y.conf",
            Err(Unreadable::Io("Input/output error".into())),
            true,
        ),
        (
            "20-y.conflist",
            Ok(snapshot(b"{\"plugins\":[{\"type\":\"cal")),
            false,
        ),
        (
            "20-y.conf",
            Err(Unreadable::NotAFile("it is a directory".into())),
            false,
        ),
        (
            "20-y.conf",
            Err(Unreadable::OutsideContainer("it is a symlink".into())),
            false,
        ),
        ("20-y.conflist.bak", Ok(snapshot(b"msm-cni")), false),
    ] {
        let mut node = Node::new(&[("10-x.conflist", LIST)]);
        node.is_settled();
        node.files.insert(name.into(), file.clone());
        let Plan { waiting, .. } = node.leave().plan;
        assert_eq!(node.content("10-x.conflist"), Some(LIST));
        assert_eq!(waiting.len(), usize::from(stays), "{waiting:?}");
        assert!(
            waiting.iter().all(|reason| reason.contains(name)),
            "{waiting:?}"
        );
        let kubeconfig = node.files.contains_key(crate::names::KUBECONFIG_FILE);
        assert_eq!(kubeconfig, stays, "{file:?}");
    }
}

/// The trees of tests/fixtures/installer, which the black-box tests go through too.
#[test]
fn every_fixture_comes_to_the_tree_that_is_expected() {
    let cases = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/installer");
    let mut count = 0;
    for case in fs::read_dir(cases).unwrap() {
        let case = case.unwrap().path();
        let read = |path: PathBuf| -> Node {
            let mut node = Node::new(&[]);
            for file in fs::read_dir(path).into_iter().flatten() {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                let content = fs::read(file.path()).unwrap();
                node.files.insert(name, Ok(snapshot(&content)));
            }
            node
        };
        let text = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
        let flags = text("flags");
        let flags: Vec<&str> = flags.lines().collect();
        let start = read(case.join("in"));
        let mut node = start.clone().with_flags(&flags);
        let waiting = node.settle().join("\n");
        let expected = text("waiting");
        assert!(
            waiting.contains(expected.trim()) && waiting.is_empty() == expected.is_empty(),
            "{}: {waiting}",
            case.display()
        );
        assert_eq!(
            node.tree(),
            read(case.join("expected")).tree(),
            "{}",
            case.display()
        );
        let networks = node.networks();
        node.leave();
        let left = case.join("left");
        let left = read(if left.is_dir() { left } else { case.join("in") });
        assert_eq!(node.tree(), left.tree(), "{}", case.display());
        // All the time it was the one that it is without us.
        assert_eq!(networks, left.networks(), "{}", case.display());
        count += 1;
    }
    assert!(count > 20, "{count} cases");
}
