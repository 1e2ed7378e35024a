//! Completions and manual pages: they name all that the help names.

use std::collections::BTreeSet;
use std::process::Command;

use pba_tests::pba;

/// A command, with what its help names.
struct Helped {
    words: Vec<String>,
    commands: Vec<String>,
    flags: BTreeSet<String>,
    help: String,
}

/// Every command, according to the help.
fn commands() -> Vec<Helped> {
    let mut found = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let asked: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = pba(&asked).ok();
        let listed =
            help.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
        // What follows a name stands far to the right of it, also on lines of its own.
        let listed = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let listed = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        let commands: Vec<String> = listed.map(str::to_owned).collect();
        open.extend(commands.iter().map(|name| [&words[..], std::slice::from_ref(name)].concat()));
        let of_flags = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let flag = |line: &str| {
            let start = line.find("--")?;
            let rest = &line[start..];
            Some(rest[..rest.find([' ', '=', '[', '.']).unwrap_or(rest.len())].to_owned())
        };
        let flags = of_flags.filter_map(flag).collect();
        found.push(Helped { words, commands, flags, help });
    }
    found
}

#[test]
fn every_command_has_an_example_and_its_flags_have_headings() {
    let commands = commands();
    assert!(commands.len() > 35, "{}", commands.len());
    for Helped { words, help, flags, .. } in &commands {
        assert!(help.contains("\nExample:\n  pba ") || help.contains("\nExamples:\n  "), "{words:?}: {help}");
        let named = format!("pba {}", words.join(" "));
        let examples = help.split("\nExample").nth(1).unwrap();
        assert!(examples.contains(named.trim_end()), "{words:?}: {examples}");
        for flag in ["--quiet", "--verbose", "--color", "--help"] {
            assert!(flags.contains(flag), "{words:?}: {flag} of {flags:?}");
        }
    }
    let start = &commands.iter().find(|command| command.words == ["search", "start"]).unwrap().help;
    for heading in ["The population:", "How each model is trained:", "Server:", "Global options:"] {
        assert!(start.contains(&format!("\n{heading}\n")), "{heading}: {start}");
    }
}

/// In the scripts of all shells, as their texts; the others are not on every machine.
#[test]
fn scripts_name_every_command_and_flag() {
    let commands = commands();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = pba(&["completions", shell]).ok();
        for Helped { words, commands, flags, .. } in &commands {
            for name in commands {
                assert!(script.contains(name), "{shell}: {words:?} {name}");
            }
            for flag in flags {
                let name = if shell == "fish" { flag.trim_start_matches('-') } else { flag };
                assert!(script.contains(name), "{shell}: {words:?} {flag}");
            }
        }
    }
    pba(&["completions", "tcsh"]).refused(2, &["tcsh", "bash, elvish, fish, powershell, zsh"]);
}

#[test]
fn bash_completes_every_command_and_flag() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("pba.bash");
    std::fs::write(&script, pba(&["completions", "bash"]).ok()).unwrap();
    // For each line of words: what is completed after them, on one line.
    let program = r#"set -eu
        source "$1"
        complete -p pba | grep -q _pba
        while IFS= read -r line; do
            eval "COMP_WORDS=($line '$2')"
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            COMPREPLY=()
            _pba pba "$2" "${COMP_WORDS[$((COMP_CWORD - 1))]}"
            echo "${COMPREPLY[*]}"
        done"#;
    let commands = commands();
    let lines: Vec<String> = commands
        .iter()
        .map(|command| format!("pba {}", command.words.join(" ")).trim_end().to_owned())
        .collect();
    let input = folder.path().join("lines");
    std::fs::write(&input, lines.join("\n") + "\n").unwrap();
    let complete = |beginning: &str| {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", program, "bash"]).arg(&script).arg(beginning);
        let output = bash.stdin(std::fs::File::open(&input).unwrap()).output().expect("bash is there");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let replies = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<BTreeSet<_>>());
        replies.collect::<Vec<_>>()
    };
    let (flags, words) = (complete("--"), complete(""));
    assert_eq!((flags.len(), words.len()), (commands.len(), commands.len()));
    for ((command, flags), words) in commands.iter().zip(&flags).zip(&words) {
        assert!(command.flags.is_subset(flags), "{:?}: {:?} of {flags:?}", command.words, command.flags);
        for name in &command.commands {
            assert!(words.contains(name), "{:?}: {name} of {words:?}", command.words);
        }
        assert!(!words.contains("remove"), "{words:?}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man1");
    let text = pba(&["man", "--out", out.to_str().unwrap()]).ok();
    let commands = commands();
    assert!(text.starts_with(&format!("{} pages written to", commands.len())), "{text}");
    for Helped { words, flags, .. } in &commands {
        let name =
            std::iter::once("pba").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        let page = std::fs::read_to_string(out.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        let plain = page.replace("\\-", "-");
        for flag in flags {
            assert!(plain.contains(flag), "{name}: {flag}");
        }
    }
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), commands.len());
    let page = pba(&["man"]).ok();
    assert_eq!(page, std::fs::read_to_string(out.join("pba.1")).unwrap());
    // A value in the environment, such as a token, is not written down.
    let mut command = pba_tests::binary::command(folder.path(), &["man", "--out", "again"]);
    let output =
        command.env("PBA_TOKEN", "s3cret").env("PBA_SERVER", "http://secret-host:1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for page in std::fs::read_dir(folder.path().join("again")).unwrap() {
        let page = std::fs::read_to_string(page.unwrap().path()).unwrap();
        assert!(!page.contains("s3cret") && !page.contains("secret-host"), "{page}");
    }
    pba(&["man", "--out", "/proc/nothing"]).refused(1, &["cannot create /proc/nothing"]);
}
