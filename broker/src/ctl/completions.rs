//! Scripts that complete commands in a shell.

use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use super::failure::Failure;
use super::{Session, commands, print, words};

pub(super) fn run(_: &Session, given: &[String]) -> Result<(), Failure> {
    let [shell] = given else {
        return Err(Failure::usage("bash, zsh or fish is needed"));
    };
    let shell = match shell.as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        other => {
            return Err(Failure::usage(format!(
                "there is no script for {other}; there are some for bash, zsh and fish"
            )));
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut grammar(), "warren", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// `warren ctl` with its commands and their options. They are taken apart in another way (`words`), as rabbitmqctl does it; this
/// is what a shell has to know.
fn grammar() -> Command {
    let mut ctl = Command::new("ctl").about("Ask a running broker").disable_help_subcommand(true);
    for option in ["data-dir", "config", "uri", "formatter", "timeout", "vhost"] {
        ctl = ctl.arg(argument(option).global(true));
    }
    for option in ["quiet", "silent", "no-table-headers"] {
        ctl = ctl.arg(argument(option).global(true));
    }
    let general: Vec<String> = ctl.get_arguments().map(|argument| argument.get_id().to_string()).collect();
    for known in commands::all() {
        let own = known.options().into_iter().filter(|option| !general.contains(option));
        let own = own.filter_map(|option| words::option(&option));
        let command = Command::new(known.name()).about(known.about());
        ctl = ctl.subcommand(own.fold(command, |command, option| command.arg(argument(option))));
    }
    let others = [
        ("bench", "Load a broker and measure it"),
        ("backup", "Copy a running broker's data"),
        ("log", "Look into a data directory"),
    ];
    let mut root = Command::new("warren").disable_help_subcommand(true).subcommand(ctl);
    for (name, about) in others {
        root = root.subcommand(Command::new(name).about(about));
    }
    root
}

fn argument(option: &'static str) -> Arg {
    let action = if words::has_value(option) { ArgAction::Set } else { ArgAction::SetTrue };
    Arg::new(option).long(option).action(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_the_commands() {
        grammar().debug_assert();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut grammar(), "warren", &mut script);
            let script = String::from_utf8_lossy(&script);
            for part in ["list_queues", "set_policy", "apply-to"] {
                assert!(script.contains(part), "{shell}: {part}");
            }
        }
    }
}
