//! The README's command blocks, typed on real machines, from top to bottom.

use crate::engines::Engine;
use crate::machine::{Init, Release};
use crate::story::bare;
use crate::user::{ann, with_ann};

const README: &str = include_str!("../../README.md");

/// Whether these words stand there, wherever the lines break.
pub fn says(words: &str) -> bool {
    README.split_whitespace().collect::<Vec<_>>().join(" ").contains(words)
}

/// The lines of the blocks that begin with this, as they are typed where `redis-tp` is on PATH.
fn commands(fence: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in README.lines() {
        match line {
            line if line == fence => inside = true,
            "```" => inside = false,
            // That one runs this very test.
            "tests/run" => {}
            line if inside => commands.push(line.replace("cargo run --release --", "redis-tp")),
            _ => {}
        }
    }
    commands
}

#[test]
fn what_the_readme_says_to_type_works() {
    assert!(commands("```sh").len() > 10, "the README's blocks are not found");
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        for command in commands("```sh") {
            machine.run(&command).ok();
        }
        assert!(!machine.exists("/etc/redis-tp"), "the last block takes everything away");
    }
}

#[test]
fn what_the_readme_says_to_type_without_root_works() {
    let commands = commands("```sh without-root");
    assert!(commands.len() > 5, "the README's block is not found");
    let Some(machine) = with_ann(Release::Trixie, Init::Systemd) else { return };
    // One shell for all of them, as a terminal has it.
    ann(&machine, &format!("sh -ec '{}'", commands.join("\n"))).ok();
    assert!(!machine.exists("/home/ann/.config"), "the last line takes everything away");
}

#[test]
fn what_the_readme_says_to_type_in_containers_works() {
    let commands = commands("```sh containers");
    assert!(commands.len() > 5, "the README's block is not found");
    let Some(machine) = Engine::Docker.boot_or_skip() else { return };
    for command in commands {
        machine.run(&command).ok();
    }
    assert!(!machine.exists("/etc/redis-tp"), "the last line takes everything away");
}

#[test]
fn every_command_stands_in_the_readme() {
    let help = std::process::Command::new(crate::story::PROGRAM).arg("--help").output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let verbs =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for verb in verbs.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help") {
        assert!(README.contains(&format!("`redis-tp {verb}")), "{verb}");
    }
}
