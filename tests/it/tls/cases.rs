//! Certificates that do not serve, as data.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use redis_tp::secret::Secret;
use redis_tp::tls::issue::{Authority, Holder};

use super::{DAY, key, now};
use crate::machine::Machine;

/// A topology with certificates of the user's own.
pub const OWN: &str = "\
[redis-tp]
tls = yes

[master]
port = 6379
tls-cert-file = /srv/tls/redis.crt
tls-key-file = /srv/tls/redis.key
tls-ca-cert-file = /srv/tls/ca.crt

[slave]
port = 6380
replicaof = master
tls-cert-file = /srv/tls/redis.crt
tls-key-file = /srv/tls/redis.key
tls-ca-cert-file = /srv/tls/ca.crt
";

/// Files that do not serve.
pub struct Case {
    /// Why.
    pub what: &'static str,
    /// What the refusal has to say.
    pub says: &'static [&'static str],
    cert: String,
    key: Secret,
    ca: String,
    after: &'static str,
}

impl Case {
    /// Puts them where the topology names them.
    pub fn lay(&self, machine: &Machine) {
        machine.run("rm -rf /srv/tls && mkdir -m 755 /srv/tls").ok();
        for (name, text) in
            [("redis.crt", &*self.cert), ("redis.key", self.key.expose()), ("ca.crt", &*self.ca)]
        {
            machine.write(format!("/srv/tls/{name}"), text);
        }
        machine.run("chown redis: /srv/tls/redis.key && chmod 400 /srv/tls/redis.key").ok();
        machine.run(self.after).ok();
    }
}

/// A root authority's certificate, and an authority that it signed.
pub fn root_and_below() -> (String, Authority) {
    let named = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let [(of_root, root), (of_below, below)] =
        ["root", "below"].map(|name| (KeyPair::generate().unwrap(), named(name)));
    let certificate = root.self_signed(&of_root).unwrap().pem();
    let signed = below.signed_by(&of_below, &Issuer::new(root, of_root)).unwrap().pem();
    (certificate, Authority { cert: signed, key: Secret::new(of_below.serialize_pem()) })
}

/// All of them.
pub fn all() -> Vec<Case> {
    let names = ["127.0.0.1".to_owned(), "redis.example.org".to_owned()];
    let (theirs, own) = (Authority::new(key(), "theirs", now()).unwrap(), key());
    let sign = |by: &Authority, reached: &[String], from: u64| {
        by.sign(&Holder { name: "redis.example.org", reached }, &own, from).unwrap()
    };
    let sound = sign(&theirs, &names, now());
    let ended = Authority::new(key(), "ended", now() - 4000 * DAY).unwrap();
    let another = Authority::new(key(), "another", now()).unwrap();
    let below = root_and_below();
    let case = |what, says: &'static [&'static str]| Case {
        what,
        says,
        cert: sound.clone(),
        key: own.clone(),
        ca: theirs.cert.clone(),
        after: "true",
    };
    let changed = |what, says, after| Case { after, ..case(what, says) };
    vec![
        Case {
            cert: sign(&theirs, &names, now() - 900 * DAY),
            ..case("it has expired", &["/srv/tls/redis.crt expired on 20", "renew it"])
        },
        Case {
            cert: sign(&theirs, &names, now() + 9 * DAY),
            ..case("it is not of this time yet", &["/srv/tls/redis.crt does not hold before 20"])
        },
        Case {
            cert: sign(&theirs, &names[1..], now()),
            ..case("it is for another name", &["/srv/tls/redis.crt is not for 127.0.0.1"])
        },
        Case {
            cert: sign(&theirs, &[], now()),
            ..case("it is a client's", &["/srv/tls/redis.crt may not be used by a server"])
        },
        Case {
            cert: sign(&another, &names, now()),
            ..case("the authority did not sign it", &["is not signed by that authority (/srv/tls/ca.crt)"])
        },
        Case {
            cert: sign(&ended, &names, now()),
            ca: ended.cert.clone(),
            ..case("its authority has ended", &["is signed by an authority that expired on 20"])
        },
        Case {
            key: key(),
            ..case("the key is another's", &["is another key's certificate (not that of /srv/tls/redis.key)"])
        },
        Case {
            key: Secret::new("no key"),
            ..case("the key is none", &["/srv/tls/redis.key has no private key in PEM"])
        },
        Case {
            cert: "no certificate".into(),
            ..case("the certificate is none", &["/srv/tls/redis.crt is no certificate in PEM"])
        },
        Case { ca: String::new(), ..case("the authority is none", &["/srv/tls/ca.crt has no authority"]) },
        Case {
            cert: sign(&below.1, &names, now()),
            ca: below.1.cert.clone(),
            ..case("its authority is no root", &["/srv/tls/ca.crt has no authority that signed itself"])
        },
        changed(
            "the server may not read the key",
            &[
                "/srv/tls/redis.key cannot be read by the server's user, redis",
                "chgrp redis /srv/tls/redis.key",
            ],
            "chown root: /srv/tls/redis.key",
        ),
        changed("the key is not there", &["/srv/tls/redis.key is not there"], "rm /srv/tls/redis.key"),
        changed(
            "the key is a directory",
            &["/srv/tls/redis.key is no file"],
            "rm /srv/tls/redis.key && mkdir /srv/tls/redis.key",
        ),
        changed(
            "the way to them is closed",
            &["/srv/tls is closed to the server's user", "chmod o+x /srv/tls"],
            "chmod 700 /srv/tls",
        ),
        changed(
            "the certificate is binary",
            &["/srv/tls/redis.crt is no text"],
            "head -c 99 /dev/urandom > /srv/tls/redis.crt",
        ),
    ]
}
