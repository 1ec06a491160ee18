//! Where files live, and whose they are: root's, in the places of the distribution; or an ordinary user's,
//! below the XDG base directories.
//!
//! A process has one layout, settled once by who runs it and read wherever a path is made. That is no
//! hidden state: like its root directory and its user, it is what a process is, and it never changes.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

use anyhow::Result;

use crate::exit::Fault;
use crate::host::{Host, Ids, Kind};

static HERE: OnceLock<Layout> = OnceLock::new();
static SYSTEM: LazyLock<Layout> = LazyLock::new(Layout::system);

/// The layout of this process; root's where none was settled.
pub fn here() -> &'static Layout {
    HERE.get().unwrap_or(&SYSTEM)
}

/// Root's topology, for who is not root.
pub fn roots() -> Option<&'static Path> {
    here().login.as_ref().map(|_| SYSTEM.topology.as_path())
}

/// Settles the layout of this process, once and before anything asks for it.
///
/// # Errors
/// An ordinary user without a place of its own: a [`Fault`] with the cure.
pub fn settle(host: &Host) -> Result<(), Fault> {
    let Some(login) = Login::of(host) else { return Ok(()) };
    let layout = Layout::user(login, |name| host.env(name).map(PathBuf::from), |dir| is_private(host, dir))?;
    for (name, base) in layout.bases() {
        layout.refuse_foreign(host, name, base)?;
    }
    // It was not set before: this is the only place that does.
    let _ = HERE.set(layout);
    Ok(())
}

/// Where files live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whose everything is, where that is not root.
    pub login: Option<Login>,
    /// The home of children.
    pub home: PathBuf,
    /// Where directories of configurations are: `/etc`.
    pub config: PathBuf,
    /// Where directories of data are: `/var/lib`.
    pub data: PathBuf,
    /// Where directories of logs are: `/var/log`.
    pub log: PathBuf,
    /// Where directories of pid files are: `/run`. A user's lies on the disk: servers outlive a login, and
    /// their configuration must not depend on how somebody logged in.
    pub run: PathBuf,
    /// The directory of the topology and of the secrets.
    pub etc: PathBuf,
    /// The topology.
    pub topology: PathBuf,
    /// The directory of our own state.
    pub state: PathBuf,
    /// The copy of this program for a service.
    pub program: PathBuf,
    /// What the web app says where no journal takes it.
    pub app_log: PathBuf,
    /// Where administrators' units and drop-ins are.
    pub units: PathBuf,
    /// The directory of the user's sockets, where its systemd listens, too; none for root.
    pub runtime: Option<PathBuf>,
    /// Where scratch directories are: gone at the latest with a restart, for there are passwords in them.
    /// None where there is no such place but `/tmp`.
    pub scratch: Option<PathBuf>,
}

/// An ordinary user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Its numbers.
    pub ids: Ids,
    /// Its name, or its number where it has none.
    pub name: String,
    /// Its group's name, or number.
    pub group: String,
}

impl Login {
    /// Who runs this process; none for root.
    fn of(host: &Host) -> Option<Self> {
        let ids = host.own_ids();
        let login = Self { name: host.user_name(ids.uid), group: host.group_name(ids.gid), ids };
        (ids.uid != 0).then_some(login)
    }
}

impl Layout {
    /// Root's: the places of the distribution.
    fn system() -> Self {
        Self {
            login: None,
            home: "/root".into(),
            config: "/etc".into(),
            data: "/var/lib".into(),
            log: "/var/log".into(),
            run: "/run".into(),
            etc: "/etc/redis-tp".into(),
            topology: "/etc/redis-tp/topology.ini".into(),
            state: "/var/lib/redis-tp".into(),
            program: "/usr/local/lib/redis-tp/redis-tp".into(),
            app_log: "/var/log/redis-tp/app.log".into(),
            units: "/etc/systemd/system".into(),
            runtime: None,
            scratch: Some("/run/redis-tp".into()),
        }
    }

    /// An ordinary user's, by the XDG base directory specification: a variable that is unset, or no
    /// absolute path, counts for nothing.
    fn user(
        login: Login,
        env: impl Fn(&str) -> Option<PathBuf>,
        is_private: impl Fn(&Path) -> bool,
    ) -> Result<Self, Fault> {
        let absolute = |name: &str| env(name).filter(|path| path.is_absolute());
        let base = |name: &str, below: &str| {
            absolute(name).or_else(|| Some(absolute("HOME")?.join(below))).ok_or_else(|| homeless(&login))
        };
        let config = base("XDG_CONFIG_HOME", ".config")?;
        let data = base("XDG_DATA_HOME", ".local/share")?;
        let kept = base("XDG_STATE_HOME", ".local/state")?;
        let state = kept.join("redis-tp");
        let etc = config.join("redis-tp");
        // After `su` the variable is unset, or another's.
        let usual = PathBuf::from(format!("/run/user/{}", login.ids.uid));
        let runtime = absolute("XDG_RUNTIME_DIR").into_iter().chain([usual]).find(|dir| is_private(dir));
        Ok(Self {
            home: absolute("HOME").unwrap_or_else(|| data.clone()),
            run: state.join("run"),
            topology: etc.join("topology.ini"),
            program: data.join("redis-tp/bin/redis-tp"),
            app_log: kept.join("redis-tp-app/app.log"),
            units: config.join("systemd/user"),
            scratch: runtime.as_ref().map(|dir| dir.join("redis-tp")),
            runtime,
            log: kept,
            login: Some(login),
            config,
            data,
            etc,
            state,
        })
    }

    /// Whose files of ours are.
    pub fn own(&self) -> Ids {
        self.login.as_ref().map_or(Ids::ROOT, |login| login.ids)
    }

    /// Who an account of the distribution's is here: a user runs everything as itself.
    pub fn account<'a>(&'a self, name: &'a str) -> &'a str {
        self.login.as_ref().map_or(name, |login| &login.name)
    }

    /// The numbers of such an account; none where there is no such user.
    ///
    /// # Errors
    /// The machine's users cannot be looked up.
    pub fn ids(&self, host: &Host, account: &str) -> Result<Option<Ids>> {
        match &self.login {
            Some(login) => Ok(Some(login.ids)),
            None => host.user(account),
        }
    }

    /// An owner as chown(1) takes it.
    pub fn owner_word(&self, user: &str, group: &str) -> String {
        match &self.login {
            Some(login) => format!("{}:{}", login.name, login.group),
            None => format!("{user}:{group}"),
        }
    }

    /// The directories above one of ours that may have to be made, the outermost first. Root's are the
    /// distribution's, and there.
    pub fn above<'a>(&self, path: &'a Path) -> Vec<&'a Path> {
        if self.login.is_none() {
            return Vec::new();
        }
        let above = path.ancestors().skip(1).filter(|above| above.parent().is_some());
        above.collect::<Vec<_>>().into_iter().rev().collect()
    }

    fn bases(&self) -> [(&'static str, &Path); 3] {
        [("XDG_CONFIG_HOME", &self.config), ("XDG_DATA_HOME", &self.data), ("XDG_STATE_HOME", &self.log)]
    }

    /// Refuses a place that is not the user's to write to: what lies there would be another's.
    fn refuse_foreign(&self, host: &Host, name: &str, base: &Path) -> Result<(), Fault> {
        let user = self.own();
        // The nearest that is there; a home may be a link to where it is.
        let there = base.ancestors().find(|path| !matches!(host.stat(path), Ok(None))).unwrap_or(base);
        let stat = host.stat(&host.real_path(there)).ok().flatten().filter(|stat| stat.kind == Kind::Dir);
        let own = stat.is_some_and(|stat| stat.uid == user.uid);
        if own || (stat.is_some() && there != base && host.may_write(there)) {
            return Ok(());
        }
        let whose = self.account("root");
        Err(Fault::refused(format!("{} is no place of {whose}'s to write to", base.display())).hint(format!(
            "give a home of {whose}'s own (HOME), or another place:\n{name}=/path/of/{whose} redis-tp up"
        )))
    }
}

/// Whether a directory is the user's own and closed to all others, as the specification wants it of
/// `XDG_RUNTIME_DIR`: after `su` it may be another's.
fn is_private(host: &Host, dir: &Path) -> bool {
    let ours = |uid: u32, mode: u32| uid == host.euid() && mode & 0o077 == 0;
    matches!(host.stat(dir), Ok(Some(stat)) if stat.kind == Kind::Dir && ours(stat.uid, stat.mode))
}

fn homeless(login: &Login) -> Fault {
    Fault::refused(format!("HOME does not say where {} keeps its files", login.name)).hint(format!(
        "set it to an absolute path:\nHOME=\"$(getent passwd {} | cut -d: -f6)\" redis-tp up",
        login.ids.uid
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(env: &[(&str, &str)]) -> Result<Layout, Fault> {
        let login = Login { ids: Ids { uid: 7, gid: 7 }, name: "ann".into(), group: "lab".into() };
        let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Layout::user(login, get, |dir| dir == Path::new("/srv/run"))
    }

    #[test]
    fn a_variable_that_is_no_absolute_path_counts_for_nothing() {
        let home = ("HOME", "/home/ann");
        let plain = layout(&[home]).unwrap();
        let odd = [("XDG_CONFIG_HOME", "conf"), ("XDG_DATA_HOME", "./d"), ("XDG_RUNTIME_DIR", "run"), home];
        assert_eq!(layout(&odd).unwrap(), plain);
        assert_eq!(plain.topology, Path::new("/home/ann/.config/redis-tp/topology.ini"));
        assert_eq!(plain.state, Path::new("/home/ann/.local/state/redis-tp"));
        assert_eq!(plain.scratch, None);
        let elsewhere = layout(&[home, ("XDG_DATA_HOME", "/srv/ann"), ("XDG_RUNTIME_DIR", "/srv/run")]);
        let elsewhere = elsewhere.unwrap();
        assert_eq!(elsewhere.program, Path::new("/srv/ann/redis-tp/bin/redis-tp"));
        assert_eq!(elsewhere.scratch.as_deref(), Some(Path::new("/srv/run/redis-tp")));
        assert_eq!(elsewhere.run, plain.run);
    }

    #[test]
    fn without_a_home_there_is_no_place() {
        assert!(layout(&[]).is_err() && layout(&[("HOME", "home/ann")]).is_err());
        let all = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"].map(|name| (name, "/srv/ann"));
        assert!(layout(&all).is_ok());
    }

    #[test]
    fn only_a_users_directories_have_others_above_them_to_be_made() {
        assert!(Layout::system().above(Path::new("/etc/redis")).is_empty());
        let ann = layout(&[("HOME", "/home/ann")]).unwrap();
        let above = ["/home", "/home/ann", "/home/ann/.config"].map(Path::new);
        assert_eq!(ann.above(Path::new("/home/ann/.config/redis")), above);
    }
}
