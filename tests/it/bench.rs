//! `redis-tp bench` as a user types it, against an app in front of a real Redis, and its figures held
//! against those of the app itself.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis_tp::app::Running;
use serde_json::Value;

use crate::app::lab::{Redis, app, eventually, metric};

fn command(app: &Running, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-tp"));
    command.args(["bench", "--url", &format!("http://{}", app.address())]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn bench(app: &Running, more: &[&str]) -> Output {
    let output = command(app, more).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn the_figures_are_those_of_the_app() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| section.slow = Duration::from_secs(2));
    let report = json(&bench(&app, &["--json", "-d", "1", "-c", "4"]));
    assert_eq!((&report["schema"], &report["command"]), (&Value::from(1), &Value::from("bench")));
    let (cold, warm) = (report["cold_ms"].as_f64().unwrap(), report["warm_ms"].as_f64().unwrap());
    assert!(cold >= 2000.0 && warm < 1000.0 && report["factor"].as_f64().unwrap() > 2.0, "{report}");
    let load = &report["load"];
    assert_eq!((&load["loop"], &load["hit_ratio"]), (&Value::from("closed"), &Value::from(1.0)), "{report}");
    assert_eq!((&load["errors"], &load["connections"]), (&Value::from(0), &Value::from(4)), "{report}");
    // One more that was warm at once, and one key that was in the cache when all were brought there.
    let hits = metric(app.address(), "redis_tp_app_requests_total{result=\"hit\"}");
    assert_eq!(load["requests"].as_u64().unwrap() + 2, hits, "{report}");
    assert_eq!(metric(app.address(), "redis_tp_app_slow_reads_total"), 16);
}

#[test]
fn what_it_draws_is_a_picture_a_table_or_a_page_of_80_columns() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |_| {});
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("bench.svg");
    let shown = bench(&app, &["-d", "1", "--svg", file.to_str().unwrap()]);
    assert!(shown.stderr.is_empty(), "progress is for a terminal: {shown:?}");
    let shown = text(&shown);
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(shown.contains("times faster from the cache") && shown.contains("p50"), "{shown}");
    assert!(shown.contains("next: redis-tp bench"), "{shown}");
    let picture = std::fs::read_to_string(file).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"), "{picture}");
    let drawn = || text(&bench(&app, &["-d", "1", "--markdown", "--rate", "100"]));
    // The last is due at 0.99 s: what comes after the end is not of this second. A machine that is busy is late.
    let held =
        |table: &String| (95..=100).any(|rate| table.contains(&format!("| requests a second | {rate} |")));
    let table = (0..5).map(|_| drawn()).find(held).expect("the rate is held");
    assert!(table.contains("| cold | ") && table.contains("```text"), "{table}");
}

#[test]
fn an_interruption_ends_the_load_and_not_the_report() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |_| {});
    let child = command(&app, &["--json", "-d", "60"]).spawn().unwrap();
    let hits = "redis_tp_app_requests_total{result=\"hit\"}";
    eventually("the load runs", || metric(app.address(), hits) > 100);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert_eq!(report["load"]["interrupted"], Value::from(true), "{report}");
    assert!(report["load"]["seconds"].as_f64().unwrap() < 30.0, "{report}");
}

#[test]
fn a_picture_that_cannot_be_written_does_not_cost_the_figures() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |_| {});
    let output = command(&app, &["-d", "1", "--svg", "/nope/bench.svg"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output).contains("times faster from the cache"), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot write /nope/bench.svg") && said.contains("\nhint: "), "{said}");
}

#[test]
fn an_app_without_its_cache_is_no_measurement() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| section.slow = Duration::from_millis(50));
    redis.kill();
    let output = command(&app, &["-d", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\"database (slow, cache unavailable)\", not from the cache"), "{said}");
    assert!(said.contains("redis-tp status") && output.stdout.is_empty(), "{said}");
}
