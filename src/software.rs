//! The engine's programs: on PATH, or unpacked without root below the user's own data directory; and how
//! each is run there, with the libraries that came along.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::host::{Child, Host};
use crate::layout;

/// The variable that names directories of libraries (ld.so(8)).
pub const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// A program that is there, and what it needs to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// The directories of its libraries; none where the system has them.
    pub libraries: Option<OsString>,
}

impl Tool {
    /// The program as a child to be.
    pub fn child(&self) -> Child {
        let child = Child::new(&self.path);
        match &self.libraries {
            Some(libraries) => child.env(LIBRARIES, libraries),
            None => child,
        }
    }
}

/// A program of the engine's: that of the system, or else the unpacked one.
pub fn find(host: &Host, engine: Engine, program: &str) -> Option<Tool> {
    if let Some(path) = host.which(program) {
        // `redis-tp env` puts the unpacked ones on PATH.
        let unpacked = unpacked(engine).filter(|place| path.starts_with(place));
        return Some(Tool { path, libraries: unpacked.map(|place| libraries(&place)) });
    }
    let path = self::program(engine, program)?;
    host.stat(&path).ok()??;
    Some(Tool { path, libraries: Some(libraries(&unpacked(engine)?)) })
}

/// Where a program is once it is unpacked.
pub fn program(engine: Engine, name: &str) -> Option<PathBuf> {
    Some(unpacked(engine)?.join("usr/bin").join(name))
}

/// Where packages are unpacked; none where root installs them.
pub fn place() -> Option<PathBuf> {
    let here = layout::here();
    here.login.as_ref().map(|_| here.data.join("redis-tp/software"))
}

/// Where the packages of an engine are unpacked.
pub fn unpacked(engine: Engine) -> Option<PathBuf> {
    Some(place()?.join(engine.name()))
}

/// The directories of libraries below `root`, by Debian's name for this kind of machine.
pub fn libraries(root: &Path) -> OsString {
    let kind = match std::env::consts::ARCH {
        "x86" => "i386-linux-gnu".to_owned(),
        "arm" => "arm-linux-gnueabihf".to_owned(),
        "powerpc64" => "powerpc64le-linux-gnu".to_owned(),
        arch => format!("{arch}-linux-gnu"),
    };
    ["usr/lib", "lib"].map(|lib| root.join(lib).join(&kind).into_os_string()).join(&OsString::from(":"))
}
