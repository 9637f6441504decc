//! A reply that cannot be written, and an unknown applet name.

use std::fs::File;
use std::process::Stdio;

use msm_testkit::applet;
use msm_testkit::command::run;

#[test]
fn unwritable_reply_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut version = applet("msm-cni");
    version
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    assert_eq!(version.stdout(full).status().unwrap().code(), Some(1));
    let unwritable = File::open("/dev/null").unwrap();
    assert_eq!(version.stdout(unwritable).status().unwrap().code(), Some(1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(version.stdout(writer).status().unwrap().code(), Some(1));
}

#[test]
fn unknown_name_is_a_usage_error() {
    for name in ["msm", "msm-cn", "sh", ""] {
        let outcome = run(&mut applet(name)).exited(2);
        assert!(outcome.stderr.contains("msm-iptables"), "{outcome}");
    }
    run(applet("msm").arg("--help")).succeeded();
}
