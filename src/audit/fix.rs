//! What `check --fix` does about a finding: mostly an edit of the topology, which the planner then carries out
//! as it does every other.

use std::path::PathBuf;

use crate::exit::Fault;
use crate::facts::Role;
use crate::finding::visible;
use crate::kernel::Setting;
use crate::topology::{Document, Name};
use crate::users;

use super::seen::Server;
use super::{Audited, Seen};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Let a directive of an instance have a value, or none of its own.
    Set {
        /// The instance.
        instance: Name,
        /// The directive.
        directive: &'static str,
        /// Its value; none for the program's own.
        value: Option<String>,
    },
    /// Let the topology have its way with what was changed by hand.
    Overwrite,
    /// Give the machine's instances a password of 256 bits, and this one no other.
    Password {
        /// The instance.
        instance: Name,
    },
    /// Take from others what they may do with a file.
    Close {
        /// The file or directory.
        path: PathBuf,
        /// Its inode: no other that is there by then.
        inode: u64,
        /// The mode that it gets.
        mode: u32,
    },
    /// Let certificates be made anew that do not serve: every plan does.
    Renew,
    /// Let the kernel have a setting, now and whenever the machine starts.
    Kernel {
        /// Which.
        setting: Setting,
        /// Its value.
        value: String,
    },
    /// Restart an instance.
    Restart {
        /// The instance.
        instance: Name,
        /// Why.
        why: &'static str,
    },
}

impl Fix {
    /// What it is, in a few words; none for what only goes along with others.
    pub fn words(&self) -> Option<String> {
        match self {
            Self::Set { instance, directive, value: Some(value) } => {
                Some(format!("{directive} = {value} in [{instance}]"))
            }
            Self::Set { instance, directive, value: None } => {
                Some(format!("[{instance}] without {directive}"))
            }
            Self::Password { .. } => Some(format!(
                "a password of 256 bits, in {}: clients of your own need it, too",
                crate::secrets::password_file().display()
            )),
            Self::Close { path, mode, .. } => Some(format!("{} gets mode {mode:04o}", path.display())),
            Self::Kernel { setting, value } => {
                Some(format!("{} = {value}, by {}", setting.name(), setting.file().display()))
            }
            Self::Restart { instance, .. } => Some(format!("restart {instance}")),
            Self::Renew => Some("another certificate".into()),
            Self::Overwrite => None,
        }
    }
}

/// Writes fixes into a topology.
pub fn edit(document: &mut Document, fixes: &[Fix]) {
    for fix in fixes {
        match fix {
            Fix::Set { instance, directive, value } => {
                let key = document.spelling(instance.as_str(), directive);
                match value {
                    Some(value) => document.set(instance.as_str(), &key, value),
                    None => document.unset(instance.as_str(), &key),
                }
            }
            Fix::Password { instance } => {
                document.unset("redis-tp", "password");
                for directive in ["requirepass", "masterauth"] {
                    let key = document.spelling(instance.as_str(), directive);
                    document.unset(instance.as_str(), &key);
                }
            }
            Fix::Overwrite | Fix::Renew | Fix::Close { .. } | Fix::Kernel { .. } | Fix::Restart { .. } => {}
        }
    }
}

/// Refuses what would lock somebody out who is in, or may be.
///
/// # Errors
/// A client would lose its way in, or whether one would cannot be told.
pub fn refuse_lock_out(seen: &Seen, audited: &[Audited]) -> Result<(), Fault> {
    for (id, fix) in audited.iter().flat_map(|done| done.fixes.iter().map(|fix| (done.check.id, fix))) {
        let (name, how) = match fix {
            Fix::Set { instance, directive: "bind", value: Some(value) } => {
                (instance, format!("`bind = {value}`"))
            }
            Fix::Set { instance, directive: "protected-mode", value: Some(_) } if open(seen, instance) => {
                (instance, "`protected-mode = yes`".to_owned())
            }
            Fix::Set { instance, directive: "tls-auth-clients", value: Some(value) } => {
                (instance, format!("`tls-auth-clients = {value}`"))
            }
            Fix::Set { instance, directive: "unixsocketperm", value: Some(mode) } => {
                refuse_socket_closed(seen, instance, mode, id)?;
                continue;
            }
            Fix::Password { instance } => (instance, "another password".to_owned()),
            _ => continue,
        };
        let Some(server) = server(seen, name) else { continue };
        if let Some(client) = from_elsewhere(server) {
            return Err(Fault::refused(format!("{client}: {how} would lock it out")).hint(rest_now(&[id])));
        }
    }
    let overwrites: Vec<&str> = audited
        .iter()
        .filter(|done| done.fixes.contains(&Fix::Overwrite))
        .map(|done| done.check.id)
        .collect();
    if overwrites.is_empty() {
        return Ok(());
    }
    seen.servers.iter().filter(|server| server.instance.is_some() && server.runs).try_for_each(|server| {
        refuse_demotion(server)?;
        refuse_unseen(server, &overwrites)?;
        refuse_user_lost(server)?;
        refuse_password_lost(server)
    })
}

/// The way when something has to wait for a person.
fn rest_now(ids: &[&str]) -> String {
    let mut ids = ids.to_vec();
    ids.dedup();
    let except: String = ids.iter().map(|id| format!(" --except {id}")).collect();
    format!("put that right together with it, and the rest now:\nredis-tp check --fix{except}")
}

fn server<'a>(seen: &'a Seen, name: &Name) -> Option<&'a Server> {
    seen.servers.iter().find(|server| server.instance.as_ref() == Some(name))
}

/// Who is connected to a server from another machine, in words; none where nobody is.
fn from_elsewhere(server: &Server) -> Option<String> {
    let name = &server.name;
    match server.elsewhere() {
        None => Some(format!(
            "whether a client from another machine is connected to {name} cannot be asked, and one may be"
        )),
        Some(all) => all.first().map(|ip| format!("{ip} is connected to {name} from another machine")),
    }
}

/// Whether a server asks for no password: then protected mode keeps other machines out.
fn open(seen: &Seen, instance: &Name) -> bool {
    server(seen, instance).is_some_and(|server| !server.open_at.is_empty())
}

/// A mode of its Unix socket keeps users out who are connected by it.
fn refuse_socket_closed(seen: &Seen, instance: &Name, mode: &str, id: &str) -> Result<(), Fault> {
    let Some((server, (path, stat))) = server(seen, instance).and_then(|it| Some((it, it.socket.as_ref()?)))
    else {
        return Ok(());
    };
    let who = match &server.socket_users {
        None => {
            "whether users of this machine are connected by it cannot be asked, and one may be".to_owned()
        }
        Some(users) => {
            let stays = |user: &Option<u32>| user.is_some_and(|uid| uid == 0 || uid == stat.uid);
            match users.iter().find(|user| !stays(user)) {
                None => return Ok(()),
                Some(Some(uid)) => format!("user {uid} is connected by it"),
                Some(None) => "somebody is connected by it".to_owned(),
            }
        }
    };
    let (name, path) = (&server.name, path.display());
    Err(Fault::refused(format!("{path} of {name}: {who}, whom `unixsocketperm = {mode}` would lock out"))
        .hint(rest_now(&[id])))
}

/// The topology's way would make a replica again of one that was promoted, whatever the fix is for.
fn refuse_demotion(server: &Server) -> Result<(), Fault> {
    let promoted = server.told.as_ref().is_some_and(|told| told.role == Role::Master);
    let Some(master) = server.wanted_master.as_ref().filter(|_| promoted) else { return Ok(()) };
    let (name, host, port) = (&server.name, &master.host, master.port);
    Err(Fault::refused(format!("{name} was promoted and is a master now: --fix would make it a replica again"))
        .hint(format!(
            "say first which it is to be:\nredis-tp apply --adopt        # it stays a master\nredis-tp apply --overwrite    # it follows {host} {port} again, its data backed up first"
        )))
}

/// What the topology's way takes from a server that does not let us in is not known.
fn refuse_unseen(server: &Server, overwrites: &[&str]) -> Result<(), Fault> {
    match from_elsewhere(server).filter(|_| server.told.is_none()) {
        None => Ok(()),
        Some(client) => Err(Fault::refused(format!(
            "{client}, and {} does not let redis-tp in: what --fix would take from it is not known",
            server.name
        ))
        .hint(rest_now(overwrites))),
    }
}

/// The topology's way with a server takes users away that somebody made by hand.
fn refuse_user_lost(server: &Server) -> Result<(), Fault> {
    let Some(told) = &server.told else { return Ok(()) };
    let is_in = |user: &&String| match &told.clients {
        None => true,
        Some(clients) => clients.iter().any(|client| client.user == **user),
    };
    let Some(user) = server.by_hand.iter().find(is_in) else { return Ok(()) };
    let (name, user) = (&server.name, visible(user));
    let is_in = match told.clients {
        Some(_) => format!("the user {user} is logged in to {name}"),
        None => format!("whether the user {user} is logged in to {name} cannot be asked"),
    };
    Err(Fault::refused(format!("{is_in}, and no file names it: --fix would take it away")).hint(format!(
        "keep it by a line `user = {user} …` in [{name}], as this tells it, or end its clients first:\nredis-tp cli {name} -- ACL LIST"
    )))
}

/// It takes a password away, too, that somebody gave by hand to a user of ours. Those who are in as one from
/// this machine may be ours; nobody but us is the administrator.
fn refuse_password_lost(server: &Server) -> Result<(), Fault> {
    let Some(told) = &server.told else { return Ok(()) };
    let name = &server.name;
    let is_in = |user: &&String| match &told.clients {
        None => server.elsewhere().is_none_or(|all| !all.is_empty()),
        Some(clients) => clients
            .iter()
            .any(|client| client.user == **user && (client.elsewhere.is_some() || *user == users::ADMIN)),
    };
    let Some(user) = server.other_password.iter().find(is_in) else { return Ok(()) };
    Err(Fault::refused(format!(
        "{user} of {name} has a password that no file has, and clients are logged in: --fix would take it away"
    ))
    .hint(format!(
        "give them the password of {}, or end them first:\nredis-tp cli {name} -- CLIENT LIST",
        crate::secrets::password_file().display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::seen::{Client, Told};
    use crate::finding::{Check, Finding};
    use crate::wire::Address;

    fn done(id: &'static str, fixes: Vec<Fix>) -> Audited {
        let finding = Finding::fail("found", "cause", "cure");
        let (subject, did) = ("master".into(), "looked".into());
        let check = Check { id, severity: None, subject, did, finding, time: std::time::Duration::ZERO };
        Audited { check, fixes }
    }

    fn master() -> Name {
        Name::parse("master").unwrap()
    }

    fn set(directive: &'static str, value: &str) -> Fix {
        Fix::Set { instance: master(), directive, value: Some(value.into()) }
    }

    fn seen(server: Server) -> Seen {
        let server = Server { name: "master".into(), instance: Some(master()), runs: true, ..server };
        Seen { servers: vec![server], ..Seen::default() }
    }

    #[test]
    fn what_nobody_tells_is_refused() {
        let bind = [done("wide-bind", vec![set("bind", "127.0.0.1"), Fix::Overwrite])];
        let overwrite = [done("maxmemory", vec![Fix::Overwrite]), done("eviction", vec![Fix::Overwrite])];
        let mute = || Server { told: Some(Told::default()), ..Server::default() };
        for (server, fixes, words) in [
            (Server::default(), &bind[..], "whether a client from another machine is connected to master"),
            (mute(), &bind, "whether a client from another machine is connected to master"),
            (Server::default(), &overwrite, "does not let redis-tp in"),
            (Server { by_hand: vec!["bob".into()], ..mute() }, &overwrite, "whether the user bob is"),
            (Server { other_password: vec!["app".into()], ..mute() }, &overwrite, "app of master has"),
        ] {
            let fault = refuse_lock_out(&seen(server), fixes).expect_err(words);
            assert!(format!("{fault:?}").contains(words), "{fault:?}");
        }
        let fault = refuse_lock_out(&seen(Server::default()), &overwrite).unwrap_err();
        assert!(format!("{fault:?}").contains("--except maxmemory --except eviction"), "{fault:?}");
    }

    #[test]
    fn no_fix_makes_a_replica_again_of_one_that_was_promoted() {
        let fixes = [done("maxmemory", vec![set("maxmemory", "1gb"), Fix::Overwrite])];
        let close =
            [done("data-mode", vec![Fix::Close { path: "/var/lib/redis".into(), inode: 1, mode: 0o750 }])];
        let master = Role::Master;
        let follows = Role::Replica { host: "127.0.0.1".into(), port: 6380, up: true };
        let server = |role: &Role, wanted: bool| Server {
            told: Some(Told { role: role.clone(), clients: Some(Vec::new()), ..Told::default() }),
            wanted_master: wanted.then(|| Address { host: "127.0.0.1".into(), port: 6379, tls: None }),
            ..Server::default()
        };
        let fault = refuse_lock_out(&seen(server(&master, true)), &fixes).unwrap_err();
        assert!(format!("{fault:?}").contains("redis-tp apply --adopt"), "{fault:?}");
        refuse_lock_out(&seen(server(&master, true)), &close).unwrap();
        refuse_lock_out(&seen(server(&master, false)), &fixes).unwrap();
        refuse_lock_out(&seen(server(&follows, true)), &fixes).unwrap();
    }

    #[test]
    fn where_the_kernel_or_the_server_says_that_nobody_is_there_it_is_not() {
        let fixes = [done("wide-bind", vec![set("bind", "127.0.0.1"), Fix::Overwrite])];
        let client = |user: &str| Client { user: user.into(), elsewhere: None };
        let told = Told { clients: Some(vec![client("app"), client("replica")]), ..Told::default() };
        let other_password = vec!["app".to_owned(), "replica".to_owned()];
        for server in [
            Server { connected: Some([].into()), ..Server::default() },
            Server { told: Some(told), other_password, ..Server::default() },
        ] {
            refuse_lock_out(&seen(server), &fixes).unwrap();
        }
    }
}
