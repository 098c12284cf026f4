//! Tests of the config.

use super::*;

#[test]
fn default_texts_parse_and_mean_the_defaults() {
    let p = Platform::linux();
    assert_eq!(parse(DEFAULT, "hob.json", &p), Ok(Config::default()));
    let shown = parse(&defaults_text(), "hob.json", &p).unwrap();
    assert_eq!(shown.daemon, DaemonSpec::default());
    let argv = shown.services["NAME"].command.clone();
    assert!(!argv.is_empty());
    assert_eq!(*shown.services["NAME"], ServiceSpec { command: argv, ..ServiceSpec::default() });
}
