//! A daemon with a pid file, where systemd is not PID 1. It runs as the server's user, never as root.

use std::path::{Path, PathBuf};

use crate::instance::Target;
use crate::layout;

/// The directory of a pid file, which systemd would make.
pub fn run_dir(pidfile: &Path) -> PathBuf {
    pidfile.parent().unwrap_or(Path::new("/run")).to_path_buf()
}

/// What a person would type to start it.
pub fn start_command(target: &Target) -> String {
    let server = target.engine.server();
    format!("{}{server} {}", as_user(target.engine.user()), target.conf().display())
}

/// What stands before a command that another user is to run; nothing where one user runs all.
pub fn as_user(user: &str) -> String {
    match layout::here().login {
        Some(_) => String::new(),
        None => format!("setpriv --reuid={user} --regid={user} --clear-groups "),
    }
}

/// What a person would type to stop it.
pub fn stop_command(target: &Target) -> String {
    format!("kill \"$(cat {})\"", target.pidfile().display())
}
