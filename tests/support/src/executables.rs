//! Executable files that a test makes. A child process writes them: a file that the test itself
//! opened for writing can be inherited by a child that another thread starts meanwhile, and
//! executing it fails with ETXTBSY as long as that child has it open.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::executable;

/// Writes `content` to a file of mode 0755.
pub fn write_executable(path: &Path, content: &[u8]) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(content).unwrap();
    drop(stdin);
    let status = child.wait().unwrap();
    assert!(status.success(), "write {}: {status}", path.display());
}

/// Writes an executable that works like the one under test, but has another content.
pub fn write_other_version(path: &Path) {
    let mut content = fs::read(executable()).unwrap();
    content.push(b'\n');
    write_executable(path, &content);
}
