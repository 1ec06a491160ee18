//! The proof of a web app as commands to type.

use std::time::Duration;

use super::super::{App, Options};
use crate::http::Url;
use crate::topology::AppSection;

/// The key for it, which is also a fine segment of a path.
const KEY: &str = "redis-tp-verify-by-hand";

/// Sections of commands, each with its title, that show by hand what the app's checks look at: of the app
/// at a URL, or of the installed one. `root` asks the master.
pub fn by_hand(
    installed: Option<&AppSection>,
    options: &Options,
    root: Option<&str>,
) -> Vec<(&'static str, Vec<String>)> {
    let (url, ttl) = match (&options.app, installed) {
        (None, _) => return Vec::new(),
        (Some(App::At { url, ttl, .. }), _) => (url.clone(), ttl.unwrap_or(AppSection::default().ttl)),
        (Some(App::Own { .. }), Some(app)) => (Url::local(app.bind, app.port), app.ttl),
        (Some(App::Own { slow }), None) => return vec![(HOW, serve(options.ttl, *slow))],
    };
    let prefix = installed.map_or("", |app| app.prefix.as_str());
    commands(&url, &format!("{prefix}{KEY}"), ttl, root)
}

const HOW: &str = "redis-tp app serve, in another terminal, is a web app to look at; then:";

fn serve(ttl: Duration, slow: Duration) -> Vec<String> {
    let (ttl, slow) = (ttl.as_secs(), slow.as_secs_f64());
    vec![
        format!("#   redis-tp app serve --port 5000 --ttl {ttl} --slow {slow}"),
        format!("#   redis-tp verify --shell --url http://127.0.0.1:5000 --ttl {ttl} --slow {slow}"),
    ]
}

fn commands(url: &Url, stored: &str, ttl: Duration, root: Option<&str>) -> Vec<(&'static str, Vec<String>)> {
    let get = || vec![format!("curl -s -w '  %{{time_total}} s\\n' {url}/data/{KEY}")];
    let ask = |what: &str| root.map(|root| format!("{root} {what}"));
    let look = ask(&format!("TTL {stored}"));
    let wait = look.as_ref().map(|_| format!("sleep {}", ttl.as_secs() + 1));
    let reads = || format!("curl -s {url}/metrics | grep ^redis_tp_app_slow_reads_total");
    let herd = format!(
        "seq 100 | xargs -P 100 -I N curl -s -o /dev/null -w '%{{http_code}}\\n' {url}/data/{KEY}-herd | sort | uniq -c"
    );
    vec![
        ("the web app: the first answer is slow, from the database …", get()),
        ("… and the second is fast, from the cache", get()),
        ("its key is in Redis, and its TTL falls", look.iter().cloned().collect()),
        (
            "a hundred at once for a cold key: 100 times 200, and one slow read more",
            vec![reads(), herd, reads()],
        ),
        ("once the TTL has run out the key is gone: -2 …", wait.into_iter().chain(look).collect()),
        ("… and the answer is slow again", get()),
        (
            "leave none of the app's keys behind",
            ask(&format!("DEL {stored} {stored}-herd")).into_iter().collect(),
        ),
    ]
}
