//! The scripts: each hands its words to `hob complete` and its answer to the shell.

/// The shells, in the order of their scripts.
pub(in crate::cli) const SHELLS: &[&str] = &["bash", "zsh", "fish"];

pub(super) fn of(shell: &str) -> String {
    let script = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        _ => FISH,
    };
    script.replace("@FILES@", super::FILES).replace("@FOLDERS@", super::FOLDERS).replace("@PROGRAMS@", super::PROGRAMS)
}

/// Bash splits words at `=` and `:` too, and replaces only what follows the last of them.
const BASH: &str = r#"# bash completion of hob: source <(hob completions bash)
_hob_add() { while IFS= read -r w; do COMPREPLY+=("$w"); done < <(compgen "$1" -- "$2"); }
_hob() {
  local rest=${COMP_LINE:0:COMP_POINT} w cur i n=-1 line
  local -a words=()
  for ((i = 0; i <= COMP_CWORD; i++)); do
    w=${COMP_WORDS[i]}
    if ((i == 0)) || [[ $rest == [[:space:]]* ]]; then n=$((n + 1)); words[n]=$w; else words[n]+=$w; fi
    rest=${rest#"${rest%%[![:space:]]*}"}
    rest=${rest#"$w"}
  done
  cur=${words[n]}
  local cut=${cur%"${COMP_WORDS[COMP_CWORD]}"}
  case ${COMP_WORDS[COMP_CWORD]} in [:=]) cut=$cur ;; esac
  local part=${cur#"$cut"}
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
    @FILES@) compopt -o filenames 2>/dev/null; _hob_add -f "$part" ;;
    @FOLDERS@) compopt -o filenames 2>/dev/null; _hob_add -d "$part" ;;
    @PROGRAMS@) _hob_add -c "$part" ;;
    *) w=${line%%$'\t'*}; COMPREPLY+=("${w#"$cut"}") ;;
    esac
  done < <("${words[0]/#\~/$HOME}" complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _hob hob
"#;

const ZSH: &str = r#"#compdef hob
# zsh completion of hob: source <(hob completions zsh), or write it to a file _hob in a folder of $fpath
_hob() {
  local line program=${(Q)words[1]/#\~/$HOME}
  local -a offered
  for line in ${(f)"$("$program" complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)"}; do
    case $line in
    @FILES@) compset -P '--*='; _files ;;
    @FOLDERS@) compset -P '--*='; _files -/ ;;
    @PROGRAMS@) _command_names -e ;;
    *$'\t'*) offered+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
    *) offered+=("${line//:/\\:}") ;;
    esac
  done
  (( $#offered )) && _describe -V 'hob' offered
}
if [[ ${funcstack[1]} == _hob ]]; then _hob "$@"; else (( $+functions[compdef] )) && compdef _hob hob; fi
"#;

const FISH: &str = r#"# fish completion of hob: hob completions fish | source
function __hob_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  set -l program $words[1]
  set -e words[1]
  set -l flag (string match -r '^--[^=]*=' -- "$current")
  set -l value (string replace -r '^--[^=]*=' '' -- "$current")
  for line in ($program complete -- $words "$current" 2>/dev/null)
    switch $line
      case @FILES@
        for path in (__fish_complete_path "$value"); echo "$flag$path"; end
      case @FOLDERS@
        for path in (__fish_complete_directories "$value"); echo "$flag$path"; end
      case @PROGRAMS@
        complete -C "$current"
      case '*'
        echo $line
    end
  end
end
complete -c hob -f -a '(__hob_complete)'
"#;
