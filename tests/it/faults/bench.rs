//! A machine that is put back into one state before every fault, and what has to hold after each.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::machine::{Alike, Init, Machine, Out, Release, Snapshot, differences};
use crate::story::bare;

/// The password of every server; no file that others can read may have it.
const SECRET: &str = "Kanaria7-faults";

/// How many keys are in the master before every fault.
const KEYS: u64 = 101;

/// The configurations of the two servers, and their ports.
const CONFS: [(&str, u16); 2] = [("/etc/redis/redis.conf", 6379), ("/etc/redis/redis-slave.conf", 6380)];

/// What a command may change, with the servers' data.
const PLACES: [&str; 11] = [
    "/etc/redis",
    "/etc/redis-tp",
    "/etc/systemd/system",
    "/etc/default",
    "/var/lib/redis",
    "/var/lib/redis-slave",
    "/var/lib/redis-tp",
    "/var/log/redis",
    "/run/redis",
    "/run/redis-slave",
    "/run/redis-tp",
];

/// What of it has to be alike in the end: not the data, the logs, and our history of runs.
const LASTING: [&str; 5] =
    ["/etc/redis", "/etc/redis-tp", "/etc/systemd/system", "/etc/default", "/var/lib/redis-tp"];

/// Where else a command could leave something.
const ELSEWHERE: [&str; 2] = ["/tmp", "/run"];

/// `$1`: `save` the state, or put it `back`. `$2`: systemd or none.
const STATE: &str = r#"
    ask() { redis-cli --no-auth-warning -a SECRET -p "$@" 2>&1; }
    servers() { printf '%s\n' 'redis 6379 redis-server' 'redis-slave 6380 redis-server@slave'; }
    runs() { [ -n "$(ss -Hltn sport = :$1)" ]; }
    ran() { grep -qsx $1 /root/ran; }
    end() {
        if [ $1 = systemd ]; then
            units=$(systemctl list-units --all --plain --no-legend 'redis-server*' | cut -d' ' -f1)
            # Not a stop, which saves: what a fault left in memory is not the next one's.
            [ -z "$units" ] || { systemctl kill -s KILL $units; systemctl stop $units; }
            systemctl reset-failed
        fi
        for pid in $(pidof redis-server); do kill -9 $pid; done
        while pidof redis-server >/dev/null; do sleep 0.002; done
    }
    begin() {
        [ $1 = none ] || systemctl daemon-reload
        servers | while read name port unit; do
            ran $name || continue
            if [ $1 = systemd ]; then systemctl start $unit
            else (umask 027; setpriv --reuid redis --regid redis --clear-groups redis-server /etc/redis/$name.conf)
            fi </dev/null
            until ask $port PING | grep -q PONG; do sleep 0.002; done
            [ $port = 6379 ] || until ask 6380 INFO replication | grep -q link_status:up; do sleep 0.002; done
        done
    }
    case $1 in
    save)
        : >/root/ran
        servers | while read name port unit; do
            runs $port || continue
            echo $name >>/root/ran
            # Not while a child of its own saves, or sends a replica its data.
            until ask $port SAVE | grep -q OK; do sleep 0.02; done
        done
        end $2
        rm -f /run/redis*/*.pid
        tar -C / --ignore-failed-read -cf /root/state.tar PLACES 2>/dev/null || :
        ;;
    back) end $2; rm -rf PLACES; tar -C / -xf /root/state.tar ;;
    esac
    begin $2"#;

/// What the servers say: a line each, its port and how many keys; and how many processes there are.
const SERVERS: &str = r#"
    for port in 6379 6380; do
        [ -n "$(ss -Hltn sport = :$port)" ] || continue
        # One that is about to end listens, and does not answer any more.
        redis-cli --no-auth-warning -a SECRET -p $port INFO keyspace 2>/dev/null |
            awk -F'[=,]' -v port=$port '/^# Keyspace/ { told = 1 } /keys=/ { n += $2 } END { if (told) print port, n + 0 }'
    done
    # One that saves or sends its data has a child for a moment.
    echo processes $(ps -C redis-server -o pid=,ppid= |
        awk '{ above[$1] = $2 } END { for (pid in above) n += !(above[pid] in above); print n + 0 }')
    [ ! -e /var/lib/redis/dump.rdb ] || redis-check-rdb /var/lib/redis/dump.rdb | awk '/keys read/ { print "dump", $2 }'"#;

/// The exit status of a panic.
const PANIC: i32 = 101;

/// A command to disturb, on a machine that `prepare` made ready for it.
pub struct Case {
    pub name: &'static str,
    pub prepare: &'static str,
    pub command: &'static str,
}

/// A machine with a case's former state, and what is known of the state that it leads to.
pub struct Bench {
    pub machine: Machine,
    pub case: &'static Case,
    init: Init,
    before: Snapshot,
    after: Snapshot,
    /// What the servers said before, and after an undisturbed run.
    spoke: [Servers; 2],
}

/// The servers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Servers {
    /// Which ports answer, with the number of keys.
    keys: BTreeMap<u16, u64>,
    processes: u64,
    dump: u64,
}

impl Bench {
    /// A machine in the former state, after an undisturbed run has shown the other one.
    pub fn prepare(case: &'static Case, init: Init) -> Option<Self> {
        let machine = bare(Release::Bookworm, init)?;
        machine.run("apt-get install -y redis-server bash && systemctl disable --now redis-server 2>/dev/null; true").ok();
        machine.run("service redis-server stop; true").ok();
        machine.run(&format!("umask 077; printf '{SECRET}\\n' >/root/password")).ok();
        let places = PLACES.map(|place| place.trim_start_matches('/')).join(" ");
        machine.write("/root/state", STATE.replace("SECRET", SECRET).replace("PLACES", &places));
        machine.write("/root/servers", SERVERS.replace("SECRET", SECRET));
        let mut bench = Self {
            machine,
            case,
            init,
            before: Snapshot::new(),
            after: Snapshot::new(),
            spoke: Default::default(),
        };
        bench.machine.run(case.prepare).ok();
        bench.state("save");
        bench.before = bench.lasting();
        bench.spoke[0] = bench.servers();
        bench.machine.run(case.command).ok();
        bench.after = bench.lasting();
        bench.spoke[1] = bench.servers();
        bench.reset();
        let left = differences(&bench.before, &bench.lasting(), Alike::Equivalent);
        assert_eq!(left, [""; 0], "{}: the former state does not come back", case.name);
        Some(bench)
    }

    /// Puts the former state back.
    pub fn reset(&self) {
        self.state("back");
    }

    fn state(&self, verb: &str) {
        let init = if self.init == Init::Systemd { "systemd" } else { "none" };
        self.machine.run(&format!("cd / && sh /root/state {verb} {init} >/dev/null")).ok();
    }

    fn servers(&self) -> Servers {
        let mut servers = Servers::default();
        for line in self.machine.run("sh /root/servers").ok().stdout.lines() {
            let (name, number) = line.split_once(' ').expect("a name and a number");
            let number = number.parse().unwrap_or(0);
            match name {
                "processes" => servers.processes = number,
                "dump" => servers.dump = number,
                port => drop(servers.keys.insert(port.parse().expect("a port"), number)),
            }
        }
        servers
    }

    fn lasting(&self) -> Snapshot {
        let mut snapshot = self.machine.snapshot(&LASTING);
        let passing = ["/var/lib/redis-tp/runs", "/var/lib/redis-tp/lock"];
        snapshot.retain(|path, _| !passing.iter().any(|place| path.starts_with(place)));
        snapshot
    }

    /// Everything that does not hold: after a disturbed run, and after the same command again.
    pub fn judge(&self, out: &Out) -> Vec<String> {
        let mut wrong = self.judge_at_once(out);
        let again = self.machine.run(self.case.command);
        if again.status != 0 {
            wrong.push(format!("the same command again: {again}"));
            return wrong;
        }
        let left = differences(&self.after, &self.lasting(), Alike::Equivalent);
        wrong.extend(left.iter().map(|line| format!("then again: {line}")));
        wrong.extend(self.leftovers().iter().map(|line| format!("then again: left over: {line}")));
        let (now, then) = (self.settled(), &self.spoke[1]);
        if now.keys != then.keys || now.processes != then.processes {
            wrong.push(format!("then again: servers {now:?}, not {then:?}"));
        }
        if !now.keys.contains_key(&6379) && now.dump != KEYS {
            wrong.push(format!("then again: {} keys are in the dump, not {KEYS}", now.dump));
        }
        wrong
    }

    fn judge_at_once(&self, out: &Out) -> Vec<String> {
        let mut wrong = Vec::new();
        for (conf, _) in CONFS {
            let there = self.machine.snapshot(&[conf]).remove(Path::new(conf));
            let content = |snapshot: &Snapshot| snapshot.get(Path::new(conf)).map(|file| file.content);
            let there = there.map(|file| file.content);
            if there != content(&self.before) && there != content(&self.after) {
                wrong.push(format!("{conf} is neither the old nor the new"));
            }
        }
        wrong.extend(
            self.readable().iter().map(|path| format!("others can read a secret: {}", path.display())),
        );
        let servers = self.servers();
        // Killed: whatever was under way stands still, until the next run.
        // So does a thread that cannot be had end the program: in the library for children it is a panic.
        let cut = out.status > 128 || out.status == PANIC;
        if let Some(keys) =
            servers.keys.get(&6379).filter(|keys| **keys != KEYS && !self.spoke[0].keys.is_empty())
        {
            wrong.push(format!("{keys} keys are left of {KEYS}"));
        }
        let expected = match out.status {
            _ if cut => None,
            0 => Some(("after", &self.after, &self.spoke[1])),
            1 | 4 | 5 | 8 => Some(("before", &self.before, &self.spoke[0])),
            9 => None,
            _ => {
                wrong.push(format!("exit code {}", out.status));
                None
            }
        };
        if let Some((which, tree, spoke)) = expected {
            let left = differences(tree, &self.lasting(), Alike::Equivalent);
            wrong.extend(left.iter().map(|line| format!("not as {which}: {line}")));
            wrong.extend(self.leftovers().iter().map(|line| format!("left over: {line}")));
            if servers.keys.keys().ne(spoke.keys.keys()) || servers.processes != spoke.processes {
                wrong.push(format!("servers {servers:?}, not {spoke:?}"));
            }
        }
        wrong
    }

    /// The servers, once a replica has its data.
    fn settled(&self) -> Servers {
        for _ in 0..1200 {
            let servers = self.servers();
            if servers.keys == self.spoke[1].keys {
                return servers;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        self.servers()
    }

    /// Files that a run made for its own use and did not take away.
    fn leftovers(&self) -> Vec<String> {
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".redis-tp-new")
                || name.starts_with("redis-tp-")
                || path == Path::new("/run/redis-tp")
        };
        let all = self.files().into_iter().map(|(path, _)| path).filter(ours);
        all.map(|path| path.display().to_string()).collect()
    }

    /// Files with the password in them that every user can read.
    fn readable(&self) -> Vec<PathBuf> {
        let has_it = |path: &Path| {
            let bytes = fs::read(self.there(path)).unwrap_or_default();
            bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
        };
        let open = |(path, meta): &(PathBuf, fs::Metadata)| {
            meta.is_file() && meta.permissions().mode() & 0o004 != 0 && has_it(path)
        };
        self.files().into_iter().filter(open).map(|(path, _)| path).collect()
    }

    fn there(&self, path: &Path) -> PathBuf {
        self.machine.root().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What is at and below all places where a run may write.
    fn files(&self) -> Vec<(PathBuf, fs::Metadata)> {
        let mut waiting: Vec<PathBuf> = PLACES.iter().chain(&ELSEWHERE).map(PathBuf::from).collect();
        let mut files = Vec::new();
        while let Some(path) = waiting.pop() {
            let Ok(meta) = self.there(&path).symlink_metadata() else { continue };
            if meta.is_dir() && !path.starts_with("/run/systemd") {
                let entries = fs::read_dir(self.there(&path)).into_iter().flatten().flatten();
                waiting.extend(entries.map(|entry| path.join(entry.file_name())));
            }
            files.push((path, meta));
        }
        files
    }
}
