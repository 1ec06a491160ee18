//! The cases: what is put in, the exit code, and what the error has to say.

use super::Case;

/// What clap refuses, on any machine.
pub const USAGE: &[&[&str]] = &[
    &[],
    &["instal"],
    &["install", "--port", "0"],
    &["install", "--port", "65536"],
    &["install", "--port", "6379x"],
    &["install", "--bind", "localhost"],
    &["install", "--bind", ""],
    &["install", "--bind", "127.0.0.1\n0.0.0.0"],
    &["install", "--bind", "127.0.0.1\""],
    &["install", "--protected-mode", "maybe"],
    &["install", "--engine", "memcached"],
    &["install", "--no-password", "--password-file", "-"],
    &["replica"],
    &["replica", "add"],
    &["replica", "add", "--port", "6390", "--name", "a\nb"],
    &["replica", "add", "--port", "6390", "--name", "../../etc/passwd"],
    &["replica", "add", "--port", "6390", "--name", "redis-tp"],
    &["replica", "add", "--port", "6390", "--of", "ho\"st:1"],
    &["replica", "add", "--port", "6390", "--of", "a\nb"],
    &["replica", "add", "--port", "6390", "--of", "host:70000"],
    &["verify", "--ttl", "0"],
    &["verify", "--lab", "--ttl", "60"],
    &["verify", "--url", "https://127.0.0.1"],
    &["verify", "--url", "http://ho st"],
    &["app"],
    &["app", "install", "--port", "0"],
    &["app", "install", "--bind", "localhost"],
    &["app", "install", "--ttl", "0"],
    &["app", "install", "--ttl", "1.5"],
    &["app", "install", "--slow", "-1"],
    &["app", "install", "--slow", "NaN"],
    &["app", "install", "--prefix", "a b"],
    &["app", "install", "--read-from", "slave"],
    &["app", "install", "--source", "mysql"],
    &["app", "install", "--source", "sqlite:lab.db"],
    &["app", "install", "--table", "data; DROP TABLE data"],
    &["app", "serve", "--redis", "localhost"],
    &["app", "serve", "--config", "-", "--port", "5000"],
    &["app", "serve", "--password-file", "-"],
    &["bench", "--url", "ftp://127.0.0.1"],
    &["bench", "--url", "http://127.0.0.1:0"],
    &["bench", "--concurrency", "0"],
    &["bench", "--rate", "0"],
    &["bench", "--duration", "0"],
    &["bench", "--json", "--markdown"],
    &["plan", "--json", "--diff"],
    &["service", "reload"],
];

/// Where the lab's master and replica run.
pub const STANDING: &[Case] = &[
    // Directives
    Case::new(
        "an unknown directive",
        "redis-tp install --set maxmemroy=100mb",
        5,
        &["topology.ini", "[master] maxmemroy: no Redis knows this directive", "did you mean 'maxmemory'?"],
    ),
    Case::new(
        "a bad word, judged by the server",
        "redis-tp install --set appendonly=maybe",
        5,
        &["topology.ini", "[master] appendonly maybe: argument must be 'yes' or 'no'"],
    ),
    Case::new(
        "a bad size, judged by the server",
        "redis-tp replica add --port 6390 --set maxmemory=lots",
        5,
        &["topology.ini", "[slave-6390] maxmemory lots: argument must be a memory value"],
    ),
    Case::new(
        "a module that is not there",
        "redis-tp install --set loadmodule=/nonexistent.so",
        5,
        &["topology.ini", "[master] loadmodule", "/nonexistent.so: cannot open shared object file"],
    ),
    Case::new(
        "an include that is not there",
        "redis-tp install --set include=/nonexistent.conf",
        5,
        &["topology.ini", "[master] include", "can't open config file '/nonexistent.conf'"],
    ),
    Case::new(
        "what only a start can tell",
        "redis-tp install --set unixsocket=/nonexistent/socket",
        8,
        &["restart master", "Failed opening Unix socket", "everything is back as it was"],
    )
    .restarts(),
    Case::new(
        "a directive of our own",
        "redis-tp install --set daemonize=no",
        5,
        &["daemonize = no: redis-tp sets this itself", "remove the line 'daemonize'"],
    ),
    Case::new("a directive that is none", "redis-tp install --set 'a b=c'", 2, &["'a b' does not look like"]),
    Case::new("no directive at all", "redis-tp install --set maxmemory", 2, &["is not KEY=VALUE"]),
    // Quotes and newlines
    Case::new(
        "a newline in --set",
        "redis-tp install --set \"maxmemory=1\nport 1\"",
        2,
        &["the value of 'maxmemory' has a newline"],
    ),
    Case::new(
        "a quote in --set that does not pair",
        "redis-tp install --set 'maxmemory=\"100mb'",
        5,
        &["[master] maxmemory = \"100mb: the quotes do not pair", "close each quote"],
    ),
    Case::topology(
        "a quote in a topology that does not pair",
        "[master]\nport = 6379\nmaxmemory = 'a\n",
        &["<stdin>:3: [master] maxmemory = 'a: the quotes do not pair"],
    ),
    Case::topology(
        "a value that goes on in the next line",
        "[master]\nport = 6379\nmaxmemory =\n  100mb\n",
        &["<stdin>:4: '100mb' is neither [section] nor key = value"],
    ),
    Case::topology(
        "a control character",
        "[master]\nport = 6379\nmaxmemory = 1\u{7}\n",
        &["<stdin>:3: the line has a control character in it"],
    ),
    // Sections and keys
    Case::topology(
        "an unknown key of ours",
        "[redis-tp]\nenigne = redis\n[master]\nport = 6379\n",
        &["<stdin>:2: unknown key 'enigne' in [redis-tp]", "did you mean 'engine'?"],
    ),
    Case::new("an unknown key in a file", "redis-tp apply -f /root/t.ini", 5, &["/root/t.ini:4: [master] prot:", "did you mean 'port'?"])
        .given("printf '; a comment\\n[master]\\nport = 6379\\nprot = 1\\n' >/root/t.ini", "rm /root/t.ini"),
    Case::topology(
        "an engine that is none",
        "[redis-tp]\nengine = mysql\n[master]\nport = 6379\n",
        &["<stdin>:2: engine = mysql: not known", "one of: redis, valkey"],
    ),
    Case::topology("a key before any section", "port = 6379\n", &["<stdin>:1: 'port' stands before any section"]),
    Case::topology("no port", "[master]\nmaxmemory = 1mb\n", &["<stdin>:1: [master] has no port", "add: port ="]),
    Case::topology("a port out of range", "[master]\nport = 65536\n", &["<stdin>:2: [master] port = 65536: '65536' is no port"]),
    Case::new("a port out of range by --set", "redis-tp install --set port=0", 5, &["[master] port = 0: '0' is no port"]),
    Case::topology(
        "a port twice",
        "[master]\nport = 6379\n[slave]\nport = 6379\nreplicaof = master\n",
        &["<stdin>:4: [slave] and [master] both have port 6379"],
    ),
    Case::topology(
        "a name twice",
        "[master]\nport = 6379\n[master]\nport = 6380\n",
        &["<stdin>:3: [master] stands twice"],
    ),
    Case::topology(
        "a directory twice",
        "[master]\nport = 6379\n[b]\nport = 6390\ndir = /var/lib/redis/\n",
        &["both have their data in /var/lib/redis"],
    ),
    Case::topology(
        "a name that is no file's",
        "[../x]\nport = 6379\n",
        &["<stdin>:1: '../x' is no name for an instance"],
    ),
    Case::topology(
        "a relative directory",
        "[master]\nport = 6379\ndir = data\n",
        &["<stdin>:3: [master] dir = data: is no absolute path"],
    ),
    Case::topology(
        "a path with a NUL in it",
        "[master]\nport = 6379\ntls-cert-file = \"/srv/a\\x00b\"\n",
        &["<stdin>:3: [master] tls-cert-file", "has a character in it that no path should have"],
    ),
    Case::topology(
        "a dump above its directory",
        "[master]\nport = 6379\ndbfilename = ..\n",
        &["<stdin>:3: [master] dbfilename", "is no name in its directory"],
    ),
    Case::topology(
        "an append only file elsewhere",
        "[master]\nport = 6379\nappendfilename = ../../../etc/cron.d/job\n",
        &["<stdin>:3: [master] appendfilename", "is no name in its directory"],
    ),
    Case::topology(
        "a directory of an append only file above its own",
        "[master]\nport = 6379\nappenddirname = \"..\"\n",
        &["<stdin>:3: [master] appenddirname", "is no name in its directory"],
    ),
    Case::topology("an empty topology", "", &["<stdin> names no instance", "redis-tp uninstall"]),
    Case::new("no topology", "redis-tp apply -f /root/none.ini", 5, &["there is no file /root/none.ini"]),
    Case::new("a topology that is no text", "redis-tp apply -f /root/t.ini", 5, &["/root/t.ini is not UTF-8 text"])
        .given("printf '[master]\\nport = 6379\\n\\377' >/root/t.ini", "rm /root/t.ini"),
    Case::new("a topology that is a directory", "redis-tp apply -f /etc", 5, &["cannot read /etc: Is a directory"]),
    Case::topology(
        "a bad value beside an instance that goes",
        "[master]\nport = 6379\nappendonly = maybe\n",
        &["<stdin>:3: [master] appendonly maybe"],
    ),
    // Whom a replica follows
    Case::topology(
        "replicaof an unknown section",
        "[master]\nport = 6379\n[slave]\nport = 6380\nreplicaof = mastre\n",
        &["<stdin>:5: [slave] replicaof = mastre: there is no [mastre]", "did you mean 'master'?"],
    ),
    Case::topology(
        "replicaof itself",
        "[master]\nport = 6379\n[slave]\nport = 6380\nreplicaof = slave\n",
        &["<stdin>:5: [slave] cannot be a replica of itself"],
    ),
    Case::topology(
        "replicaof in a circle",
        "[a]\nport = 6381\nreplicaof = b\n[b]\nport = 6382\nreplicaof = c\n[c]\nport = 6383\nreplicaof = a\n",
        &["<stdin>:3: replicaof goes in a circle: a → b → c → a", "let one of them be a master"],
    ),
    Case::new("--of an unknown instance", "redis-tp replica add --port 6390 --of mastre", 5, &["there is no instance mastre", "did you mean 'master'?"]),
    Case::new(
        "--of itself",
        "redis-tp replica add --port 6380 --of slave",
        5,
        &["[slave] cannot be a replica of itself"],
    ),
    Case::new("a replica on the master's port", "redis-tp replica add --port 6379", 5, &["port 6379 is master's", "redis-tp replica add --port 6380"]),
    Case::new("no such replica", "redis-tp replica remove slvae", 5, &["there is no replica slvae", "did you mean 'slave'?"]),
    Case::new("a master is no replica", "redis-tp replica remove master", 5, &["master is no replica", "redis-tp uninstall"]),
    Case::new(
        "a remote master's password is wrong",
        "redis-tp replica add --port 6390 --of 127.0.0.1:6379 --password-file -",
        5,
        &["slave-6390 cannot follow 127.0.0.1:6379: it does not take this password", "--password-file FILE"],
    )
    .input("wrong\n"),
    Case::new(
        "a remote master's password is missing",
        "redis-tp replica add --port 6390 --of 127.0.0.1:6379",
        5,
        &["slave-6390 cannot follow 127.0.0.1:6379: it asks for a password"],
    ),
    Case::new(
        "a remote master that is not there",
        "redis-tp replica add --port 6390 --of 127.0.0.1:1",
        5,
        &["slave-6390 cannot follow 127.0.0.1:1: nobody listens there"],
    ),
    Case::new(
        "a password for a master of this machine",
        "redis-tp replica add --port 6390 --password-file -",
        2,
        &["master is an instance of this machine: its password is known"],
    )
    .input("x\n"),
    // Passwords
    Case::new("no password file", "redis-tp install --password-file /root/none", 5, &["/root/none is not there", "printf"]),
    Case::new("a password file that is a directory", "redis-tp install --password-file /etc", 5, &["cannot read /etc: Is a directory"]),
    Case::new("an empty password file", "redis-tp install --password-file /dev/null", 5, &["the password file /dev/null is empty"]),
    Case::new("empty standard input", "redis-tp install --password-file -", 5, &["standard input is empty"]),
    Case::new("a password of two lines", "redis-tp install --password-file -", 5, &["has more than one line"])
        .input("a\nb\n"),
    Case::new("a password with a control character", "redis-tp install --password-file -", 5, &["has a control character"])
        .input("a\tb\n"),
    Case::new("a password that is no text", "redis-tp install --password-file /root/p", 5, &["/root/p is not UTF-8"])
        .given("printf '\\377\\n' >/root/p", "rm /root/p"),
    Case::new("a password on the command line", "redis-tp install --set requirepass=x", 2, &["everybody on this machine can read a command line", "--password-file"]),
    Case::new("a user on the command line", "redis-tp install --set 'user=bob on >x'", 2, &["'user' is a secret", "editor /etc/redis-tp/topology.ini"]),
    Case::topology(
        "a password of two words",
        "[master]\nport = 6379\nrequirepass = a b\n",
        &["<stdin>:3: [master] requirepass = ********: is 2 words", "\"…\""],
    ),
    Case::topology(
        "a password twice",
        "[master]\nport = 6379\nrequirepass = a\nrequirepass = b\n",
        &["<stdin>:4: 'requirepass' stands twice"],
    ),
    Case::new("a password in a file that all can read", "redis-tp apply -f /root/t.ini", 5, &["/root/t.ini holds a password and can be read by others", "chmod 600 /root/t.ini"])
        .given("printf '[master]\\nport = 6379\\nrequirepass = abc\\n' >/root/t.ini", "rm /root/t.ini"),
    // Open doors
    Case::new(
        "open to all without a password",
        "redis-tp install --bind 0.0.0.0 --no-password",
        5,
        &["[master] would listen on 0.0.0.0 without a password", "redis-tp install --password-file FILE"],
    ),
    Case::topology(
        "open to all with an empty password",
        "[master]\nport = 6379\nbind = *\nrequirepass = \"\"\n",
        &["[master] would listen on * without a password"],
    ),
    Case::topology(
        "open to all by an ACL user",
        "[master]\nport = 6379\nbind = 127.0.0.1 ::*\nuser = default on nopass ~* &* +@all\n",
        &["[master] would listen on ::* without a password"],
    ),
    // Addresses and ports
    Case::new(
        "an address that is not this machine's",
        "redis-tp install --bind '127.0.0.1 192.0.2.1'",
        5,
        &["[master] cannot listen on 192.0.2.1: this machine does not have the address", "-192.0.2.1"],
    ),
    Case::new(
        "a port that a program has",
        "redis-tp replica add --port 6390",
        5,
        &["port 6390 for slave-6390 is taken by perl (pid ", "in no unit)", "redis-tp replica add --name slave-6390 --port 6400"],
    )
    .given(LISTEN, END),
    Case::new(
        "a port that a Redis of somebody else has",
        "redis-tp replica add --port 6390",
        5,
        &["port 6390 for slave-6390 is taken by redis-server (pid ", "that redis-tp did not set up; it is left alone"],
    )
    .given(
        "setpriv --reuid=redis --regid=redis --clear-groups redis-server --port 6390 --dir /run --save '' >/dev/null &
        echo $! >/run/holder; until redis-cli -p 6390 PING; do sleep 0.02; done",
        END,
    ),
    // Places
    Case::new("data in a file", "redis-tp replica add --port 6390", 5, &["/var/lib/redis-slave-6390 is a file, not a directory", "move it away"])
        .given("touch /var/lib/redis-slave-6390", "rm /var/lib/redis-slave-6390"),
    Case::new("data behind a link", "redis-tp replica add --port 6390", 5, &["/var/lib/redis-slave-6390 is a symbolic link, not a directory"])
        .given("ln -s /srv /var/lib/redis-slave-6390", "rm /var/lib/redis-slave-6390"),
    Case::new(
        "data of somebody else",
        "redis-tp replica add --port 6390",
        5,
        &["/var/lib/redis-slave-6390 is not the server's: it belongs to uid 1", "chown -R redis: /var/lib/redis-slave-6390"],
    )
    .given("install -d -o daemon /var/lib/redis-slave-6390", "rmdir /var/lib/redis-slave-6390"),
    Case::topology(
        "data below a file",
        "[master]\nport = 6379\n[slave]\nport = 6380\nreplicaof = master\ndir = /etc/hostname/data\n",
        &["/etc/hostname is a file, not a directory", "give slave another dir"],
    ),
    Case::topology(
        "data where the server cannot go",
        "[master]\nport = 6379\n[slave]\nport = 6380\nreplicaof = master\ndir = /opt/private/data\n",
        &["slave cannot reach /opt/private/data", "/opt/private", "chmod o+x /opt/private"],
    )
    .given("install -d -m 700 /opt/private", "rmdir /opt/private"),
    Case::new(
        "a configuration of somebody else",
        "redis-tp replica add --port 6390",
        5,
        &["/etc/redis/redis-slave-6390.conf is there already, and it is not redis-tp's: left alone", "--overwrite"],
    )
    .given("echo 'port 7000' >/etc/redis/redis-slave-6390.conf", "rm /etc/redis/redis-slave-6390.conf"),
    Case::new("a configuration behind a link", "redis-tp replica add --port 6390", 5, &["/etc/redis/redis-slave-6390.conf is a symbolic link, not a file", "move it away"])
        .given("ln -s /etc/passwd /etc/redis/redis-slave-6390.conf", "rm /etc/redis/redis-slave-6390.conf"),
    Case::new("a log that is a directory", "redis-tp replica add --port 6390", 5, &["/var/log/redis/redis-slave-6390.log is a directory, not a file"])
        .given("mkdir /var/log/redis/redis-slave-6390.log", "rmdir /var/log/redis/redis-slave-6390.log"),
    // The web app
    Case::new("a port for the app that a program has", "redis-tp app install --port 6390", 5, &["port 6390 for the web app is taken by perl (pid ", "redis-tp app install --port 6400"])
        .given(LISTEN, END),
    Case::new("a port for the app that an instance has", "redis-tp app install --port 6379", 5, &["[app] and [master] both have port 6379", "another port"]),
    Case::new("an address for the app that is not here", "redis-tp app install --bind 10.9.9.9", 5, &["cannot listen on 10.9.9.9", "this machine does not have the address"]),
    Case::new("a database that is not there", "redis-tp app install --source sqlite:/srv/lab.db", 5, &["the web app's database /srv/lab.db is not there", "CREATE TABLE data"]),
    Case::new("a database that is a directory", "redis-tp app install --source sqlite:/srv/lab.db", 5, &["the web app's database /srv/lab.db is a directory"])
        .given("mkdir /srv/lab.db", "rmdir /srv/lab.db"),
    Case::new("a database that is closed to the app", "redis-tp app install --source sqlite:/srv/lab.db", 5, &["/srv/lab.db is closed to the web app's user", "chmod o+r /srv/lab.db"])
        .given("install -m 600 /dev/null /srv/lab.db", "rm /srv/lab.db"),
    Case::new("a database that is none", "redis-tp app install --source sqlite:/srv/lab.db", 8, &["/srv/lab.db", "is no SQLite database", "everything is back as it was"])
        .given("seq 1000 >/srv/lab.db", "rm /srv/lab.db"),
    Case::new("a database without a table", "redis-tp app install --source sqlite:/srv/lab.db", 8, &["/srv/lab.db", "no such table: data", "everything is back as it was"])
        .given("touch /srv/lab.db", "rm /srv/lab.db"),
    Case::topology("an app without an instance", "[app]\nport = 5000\n", &["<stdin> names no instance"]),
    Case::topology("an unknown key of the app", "[master]\nport = 6379\n[app]\nprot = 5000\n", &["<stdin>:4: unknown key 'prot' in [app]", "did you mean 'port'?"]),
    Case::topology("a lifetime that is none", "[master]\nport = 6379\n[app]\nttl = forever\n", &["<stdin>:4: [app] ttl = forever: 'forever' is no lifetime", "ttl = 60"]),
    Case::new("a port to serve on that a program has", "redis-tp app serve --port 6390", 5, &["port 6390", "perl (pid "])
        .given(LISTEN, END),
    Case::new("settings that are not there", "redis-tp app serve --config /srv/app.json", 5, &["there is no file /srv/app.json", "redis-tp app install"]),
    Case::new("settings that are none", "redis-tp app serve --config -", 5, &["standard input: line 1 is not what redis-tp writes"]).input("requirepass s3cret\n"),
    Case::new("no app to measure", "redis-tp bench --url http://127.0.0.1:1", 1, &["http://127.0.0.1:1", "nobody listens there"]),
    Case::new("something else to measure", "redis-tp bench --url http://127.0.0.1:5000/healthz", 1, &["http://127.0.0.1:5000/healthz"]),
    // Who runs it, and who else does
    Case::new(
        "a home that is another's",
        "setpriv --reuid=65534 --regid=65534 --clear-groups redis-tp install --set 'save=900 1'",
        5,
        &["/root/.config is no place of nobody's to write to", "HOME", "XDG_CONFIG_HOME="],
    ),
    Case::new(
        "what is root's, without root",
        "setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/var/tmp redis-tp cli -- GET 'a b'",
        7,
        &["/etc/redis-tp/topology.ini is root's", "nobody has set up nothing", "\n      sudo redis-tp cli -- GET 'a b'\n"],
    ),
    Case::new("a second redis-tp", "redis-tp up", 6, &["another redis-tp is at work on this machine (pid ", "wait until it has ended"])
        .given("flock -x /var/lib/redis-tp/lock sleep 600 & echo $! >/run/holder; sleep 0.2", END),
];

/// Holds port 6390.
const LISTEN: &str = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1\", LocalPort => 6390, Listen => 1) or die; sleep 600' &
    echo $! >/run/holder; for try in $(seq 500); do ss -Hltn | grep -q :6390 && break; sleep 0.02; done";
/// Ends what holds it.
const END: &str = "pid=$(cat /run/holder); kill $(ps -o pid= --ppid $pid) $pid 2>/dev/null; while [ -e /proc/$pid ]; do sleep 0.02; done";

/// Where systemd runs them.
pub const UNITS: &[Case] = &[
    Case::new(
        "a port that a unit has",
        "redis-tp replica add --port 6390",
        5,
        &["port 6390 for slave-6390 is taken by perl (pid ", ", other.service)"],
    )
    .given(
        // $$: systemd takes one of them for itself.
        "systemd-run --quiet --unit=other perl -MIO::Socket::INET -e '$$s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1\", LocalPort => 6390, Listen => 1) or die; sleep 600'
        for try in $(seq 500); do ss -Hltn | grep -q :6390 && break; sleep 0.02; done",
        "systemctl stop other",
    ),
    Case::new(
        "a unit that is masked",
        "redis-tp replica add --port 6390",
        5,
        &["redis-server@slave-6390.service is masked", "systemctl unmask redis-server@slave-6390.service"],
    )
    .given("systemctl --quiet mask redis-server@slave-6390", "systemctl --quiet unmask redis-server@slave-6390"),
    Case::topology(
        "data that the unit hides",
        "[master]\nport = 6379\n[slave]\nport = 6380\nreplicaof = master\ndir = /home/redis/data\n",
        &["slave cannot reach /home/redis/data", "ProtectHome"],
    ),
];

/// Where a disk is full: a small one of its own, for each place that we write to.
pub const FULL_DISK: &[Case] = &[
    Case::new(
        "no room for configurations",
        "redis-tp install --set maxmemory=100mb",
        5,
        &["no room on the disk of /etc/redis", "df -h /etc/redis"],
    )
    .given(
        "set -e; cp -a /etc/redis /root/etc; mount -t tmpfs -o size=64k tmpfs /etc/redis; cp -a /root/etc/. /etc/redis/
        dd if=/dev/zero of=/etc/redis/filler bs=1k count=8k status=none 2>/dev/null || :",
        "umount /etc/redis && rm -r /root/etc",
    ),
    Case::new(
        "no room for the journal",
        "redis-tp install --set maxmemory=100mb",
        5,
        &["no room on the disk of /var/lib/redis-tp", "df -h /var/lib/redis-tp"],
    )
    .given(
        "set -e; cp -a /var/lib/redis-tp /root/tp; mount -t tmpfs -o size=2m tmpfs /var/lib/redis-tp; cp -a /root/tp/. /var/lib/redis-tp/
        dd if=/dev/zero of=/var/lib/redis-tp/filler bs=1k count=8k status=none 2>/dev/null || :",
        "umount /var/lib/redis-tp && rm -r /root/tp",
    ),
    Case::new(
        "no room for data",
        "redis-tp replica add --port 6390",
        5,
        &["no room on the disk of /var/lib/redis-slave-6390", "df -h /var/lib/redis-slave-6390"],
    )
    .given(
        "set -e; mkdir /var/lib/redis-slave-6390; mount -t tmpfs -o size=4k,mode=750,uid=$(id -u redis),gid=$(id -g redis) tmpfs /var/lib/redis-slave-6390
        dd if=/dev/zero of=/var/lib/redis-slave-6390/filler bs=1k count=8k status=none 2>/dev/null || :",
        "umount /var/lib/redis-slave-6390 && rmdir /var/lib/redis-slave-6390",
    ),
    // Room enough to begin with, but not for the 1.2 MB that are to be written.
    Case::new(
        "a disk that fills up on the way",
        "redis-tp apply -f /root/t.ini",
        8,
        &["No space left on device", "everything is back as it was"],
    )
    .given(
        "set -e; cp -a /var/lib/redis-tp /root/tp; mount -t tmpfs -o size=4m tmpfs /var/lib/redis-tp; cp -a /root/tp/. /var/lib/redis-tp/
        head -c $(($(df -k --output=avail /var/lib/redis-tp | tail -n 1) * 1024 - 1100000)) /dev/zero >/var/lib/redis-tp/filler
        { cat /etc/redis-tp/topology.ini; echo; printf '[slave-6390]\nport = 6390\nreplicaof = master\nsyslog-ident = '; head -c 1200000 /dev/zero | tr '\\0' a; echo; } >/root/t.ini",
        "umount /var/lib/redis-tp && rm -r /root/tp /root/t.ini",
    ),
];

/// Where there is nothing yet.
pub const BARE: &[Case] = &[
    Case::new("nothing is set up", "redis-tp status", 5, &["nothing is set up here yet", "redis-tp up"]),
    Case::new("an app where nothing is set up", "redis-tp app install", 5, &["nothing is set up here yet", "redis-tp up"]),
    Case::new(
        "a directive that no Redis knows",
        "redis-tp install --set maxmemroy=100mb",
        5,
        &["no Redis knows this directive", "did you mean 'maxmemory'?"],
    ),
    Case::new(
        "open to all without a password",
        "redis-tp install --bind 0.0.0.0 --no-password",
        5,
        &["without a password"],
    ),
    Case::new(
        "a port that a program has",
        "redis-tp install --port 6390",
        5,
        &["port 6390 for master is taken by perl (pid ", "redis-tp install --port 6400"],
    )
    .given(LISTEN, END),
    Case::new(
        "neither root nor a home",
        "setpriv --reuid=65534 --regid=65534 --clear-groups env -u HOME redis-tp up",
        5,
        &["HOME does not say where nobody keeps its files", "redis-tp up"],
    ),
    Case::new(
        "a bad value that only the server can tell",
        "redis-tp install --set appendonly=maybe",
        8,
        &["[master] appendonly maybe: argument must be 'yes' or 'no'", "everything is back as it was"],
    ),
    Case::new(
        "a server that does not start",
        "redis-tp install --set unixsocket=/nonexistent/socket",
        8,
        &["Failed opening Unix socket", "everything is back as it was"],
    ),
    Case::new(
        "no room for passwords",
        "redis-tp up",
        5,
        &["no room on the disk of /etc/redis-tp", "df -h /etc/redis-tp"],
    )
    .given(
        "set -e; mkdir /etc/redis-tp; mount -t tmpfs -o size=4k tmpfs /etc/redis-tp; echo >/etc/redis-tp/filler",
        "umount /etc/redis-tp && rmdir /etc/redis-tp",
    ),
    Case::new(
        "apt cannot fetch",
        "redis-tp up",
        8,
        &[
            "apt-get install redis-server (after apt-get update)",
            "Connection refused",
            "everything is back as it was",
        ],
    )
    .given(
        "cp -a /etc/apt /root/apt; mkdir /root/cache; mv /var/cache/apt/archives/*.deb /root/cache/
        cp -a /var/lib/apt/lists /root/lists; rm -rf /var/lib/apt/lists/* /etc/apt/sources.list.d/*
        echo 'deb http://127.0.0.1:9/debian stable main' >/etc/apt/sources.list",
        "rm -rf /etc/apt /var/lib/apt/lists; mv /root/apt /etc/apt; mv /root/lists /var/lib/apt/lists
        mv /root/cache/*.deb /var/cache/apt/archives/; rmdir /root/cache",
    ),
];

/// Where there is neither apt nor a server.
pub const NO_ENGINE: &[Case] = &[Case::new(
    "no apt and no engine",
    "redis-tp up",
    5,
    &["redis-server is not on this machine, and neither is apt", "so that redis-server is on PATH"],
)];

/// Where IPv6 is switched off.
pub const NO_IPV6: &[Case] = &[Case::new(
    "an address of IPv6",
    "redis-tp install --bind '127.0.0.1 ::1'",
    5,
    &["[master] cannot listen on ::1: IPv6 is switched off here", "write -::1 to go on without it"],
)];

/// Holds the lock that apt and dpkg take (fcntl(2)) until /run/enough is there, and says when it has it.
pub const HOLD_APTS_LOCK: &str = "perl -MFcntl -e 'open my $f, \">>\", \"/var/lib/dpkg/lock-frontend\" or die; \
    $l = pack(\"s s x4 q q l\", F_WRLCK, 0, 0, 0, 0); fcntl $f, F_SETLK, $l or die; open my $g, \">\", \"/run/held\"; select undef, undef, undef, 0.05 until -e \"/run/enough\"'";
