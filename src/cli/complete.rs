//! Completions: one small script a shell, which asks hob itself for the words.

use super::commands::COMMANDS;
use super::flags::{Args, GLOBAL};
use super::{Failure, connect, exit, print};
use serde_json::{Value, json};

pub(crate) fn completions(args: &Args) -> Result<u8, Failure> {
    match args.operands.first().map(String::as_str) {
        Some("bash") if args.has("json") => print(&format!("{}\n", json!({ "shell": "bash", "script": bash() })))?,
        Some("bash") => print(&bash())?,
        other => {
            let shell = other.unwrap_or("");
            return Err(Failure::usage(format!("no completions for '{shell}'")).hint("there are completions for bash"));
        }
    }
    Ok(exit::OK)
}

/// What bash asks for when a word cannot be known beforehand: names of services, methods, signals.
pub(crate) fn words(args: &Args) -> Result<u8, Failure> {
    let list = match args.operands.first().map(String::as_str) {
        Some("methods") => crate::protocol::methods::METHODS.iter().map(|m| m.name.to_owned()).collect(),
        Some("signals") => {
            ["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP"].map(str::to_owned).to_vec()
        }
        _ => services(args).unwrap_or_default(),
    };
    print(&list.iter().map(|w| format!("{w}\n")).collect::<String>())?;
    Ok(exit::OK)
}

fn services(args: &Args) -> Option<Vec<String>> {
    let list: Value = connect(args).ok()?.call("service.list", &json!({})).ok()?;
    let names = list["services"].as_array()?.iter().filter_map(|s| s["name"].as_str());
    // All instances of a service are meant by what stands before the @.
    let all = names.flat_map(|n| [Some(n), crate::config::instance(n).map(|(group, _)| group)]).flatten();
    let mut all: Vec<String> = all.map(str::to_owned).collect();
    all.sort_unstable();
    all.dedup();
    Some(all)
}

fn bash() -> String {
    use super::flags::Operand;
    let mut cases = String::new();
    let long = |flags: &[super::Flag]| flags.iter().map(|f| format!("--{}", f.long)).collect::<Vec<_>>().join(" ");
    for c in COMMANDS.iter().filter(|c| !c.hidden) {
        let operands = match c.operand {
            _ if c.count.1 == 0 => String::new(),
            Operand::Service => "$(_hob_ask services)".to_owned(),
            Operand::Method => "$(_hob_ask methods)".to_owned(),
            Operand::Signal => "$(_hob_ask signals) $(_hob_ask services)".to_owned(),
            Operand::Shell => "bash".to_owned(),
            Operand::File | Operand::Text => String::new(),
        };
        // A command's own verbs stand where its first operand would.
        let own = COMMANDS.iter().filter_map(|v| v.name.split_once(' ').filter(|(noun, _)| *noun == c.name));
        let operands = own.fold(operands, |all, (_, verb)| format!("{all} {verb}"));
        // Nothing is offered beyond the last operand that the command takes.
        let operands = match c.count.1 {
            most @ 1..10 => format!(
                "    '{}') flags='{}'; ((given < {most})) && operands=\"{operands}\" ;;\n",
                c.name,
                long(c.flags)
            ),
            _ => format!("    '{}') flags='{}'; operands=\"{operands}\" ;;\n", c.name, long(c.flags)),
        };
        cases.push_str(&operands);
    }
    let mut first: Vec<&str> = COMMANDS.iter().filter(|c| !c.hidden).filter_map(|c| c.name.split(' ').next()).collect();
    first.dedup();
    let mut nouns = String::new();
    for noun in &first {
        let verbs: Vec<&str> =
            COMMANDS.iter().filter_map(|c| c.name.split_once(' ')).filter(|(n, _)| n == noun).map(|(_, v)| v).collect();
        // A noun that is a command itself takes names, and its verb is one word among them.
        if !verbs.is_empty() && COMMANDS.iter().all(|c| c.name != *noun) {
            nouns.push_str(&format!("    '{noun}') verbs='{}' ;;\n", verbs.join(" ")));
        }
    }
    let valued: Vec<String> = COMMANDS
        .iter()
        .flat_map(|c| c.flags)
        .chain(GLOBAL)
        .filter(|f| f.value.is_some())
        .flat_map(|f| [Some(format!("--{}", f.long)), f.short.map(|s| format!("-{s}"))])
        .flatten()
        .collect();
    SCRIPT
        .replace("@FIRST@", &first.join(" "))
        .replace("@NOUNS@", &nouns)
        .replace("@CASES@", &cases)
        .replace("@GLOBAL@", &long(GLOBAL))
        .replace("@VALUED@", &valued.join("|"))
}

const SCRIPT: &str = r#"# bash completion of hob: source <(hob completions bash)
_hob_ask() { "${COMP_WORDS[0]}" "${globals[@]}" complete "$1" 2>/dev/null; }
_hob() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  local i word noun='' name='' verbs='' flags='' operands='' given=0
  local -a globals=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in
    --) COMPREPLY=($(compgen -c -- "$cur")); return ;;
    --home|--config|--socket) globals+=("$word" "${COMP_WORDS[i+1]}"); ((i++)) ;;
    @VALUED@) ((i++)) ;;
    -*) ;;
    *) if [[ -z $name ]]; then
         if [[ -n $noun ]]; then name="$noun $word"; noun=''; else
           verbs=''
           case $word in
@NOUNS@    *) ;;
           esac
           if [[ -n $verbs ]]; then noun=$word; else name=$word; fi
         fi
       else ((given++)); fi ;;
    esac
  done
  case $prev in
  --home) COMPREPLY=($(compgen -d -- "$cur")); return ;;
  --config|--socket) COMPREPLY=($(compgen -f -- "$cur")); return ;;
  @VALUED@) return ;;
  esac
  if [[ -n $noun ]]; then COMPREPLY=($(compgen -W "$verbs" -- "$cur")); return; fi
  case $name in
@CASES@    help) ((given < 1)) && operands='@FIRST@' ;;
    '') operands='@FIRST@ help' ;;
  esac
  if [[ $cur == -* ]]; then operands="$flags @GLOBAL@"; fi
  COMPREPLY=($(compgen -W "$operands" -- "$cur"))
}
complete -F _hob hob
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_is_in_the_script() {
        let script = bash();
        for c in COMMANDS.iter().filter(|c| !c.hidden) {
            assert!(script.contains(&format!("'{}') flags=", c.name)), "{}", c.name);
        }
        assert!(!script.contains('@') || !script.contains("@CASES@"));
    }
}
