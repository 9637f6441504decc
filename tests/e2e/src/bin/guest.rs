//! The program of every container except the installer's: it waits until it is stopped, serves
//! connections, or makes one. It is static and the only file of its image.

use std::process::ExitCode;

use msm_cni_e2e::traffic;

const USAGE: &str = "guest pause | guest serve NAME PORT | guest connect ADDRESS:PORT";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["pause"] => loop {
            std::thread::park();
        },
        ["serve", name, port] => traffic::serve(name, port.parse().expect(USAGE)),
        ["connect", address] => {
            print!("{}", traffic::connect(address.parse().expect(USAGE)));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}
