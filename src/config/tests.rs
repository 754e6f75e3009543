//! What a deployment may rely on when it writes settings: order of sources, every fault at once, no secret shown.

use std::time::Duration;

use super::table::SECTIONS;
use super::*;

fn sources(toml: Option<&std::path::Path>, environment: &[(&str, &str)], set: &[(&str, &str)]) -> Sources {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Sources {
        chosen: Vec::new(),
        flags: Flags { file: toml.map(Into::into), set: set.iter().map(owned).collect() },
        environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    }
}

fn faults(toml: &str) -> Vec<String> {
    match Settings::from_toml(toml) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_defaults_are_what_the_design_says() {
    let settings = Settings::default();
    assert_eq!(settings.client_addr.to_string(), "127.0.0.1:7700");
    assert_eq!(settings.service_addr.to_string(), "127.0.0.1:7701");
    assert_eq!(settings.store, StoreTarget::Embedded { dir: "./hearth-data".into() });
    assert_eq!(settings.session.ttl, Duration::from_mins(30));
    assert_eq!(settings.link.heartbeat, Duration::from_secs(15));
    assert_eq!(settings.presence.grace, Duration::from_secs(15));
    assert_eq!(settings.home.lease_ttl, Duration::from_secs(6));
    assert_eq!(settings.home.flush_interval, Duration::from_millis(100));
    assert_eq!(settings.home.remember, Duration::from_hours(30 * 24));
    assert_eq!(settings.cluster.shards, 256);
    assert!(settings.dev_tokens_taken());
    assert!(!settings.has_jwt_key());
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hearth.toml");
    std::fs::write(
        &file,
        "node_id = \"file\"\n[session]\nttl_ms = 1000\npending_ms = 1000\nreplay_frames_max = 1\n",
    )
    .expect("write");
    let environment = [("HEARTH_SESSION__TTL_MS", "2000"), ("HEARTH_SESSION__PENDING_MS", "2_000")];
    let settings = Settings::from_sources(&sources(Some(&file), &environment, &[("session.ttl_ms", "3000")]))
        .expect("good settings");
    assert_eq!(settings.session.ttl, Duration::from_secs(3));
    assert_eq!(settings.session.pending, Duration::from_secs(2));
    assert_eq!(settings.session.replay_frames_max, 1);
    assert_eq!(settings.node_name(1), "file");
}

#[test]
fn what_a_command_chooses_gives_way_to_flags_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hearth.toml");
    std::fs::write(&file, "store = \"embedded:real\"\n").expect("write");
    let environment = [("HEARTH_NODE_ID", "environment"), ("HEARTH_STORE", "embedded:real")];
    let mut sources = sources(Some(&file), &environment, &[("node_id", "flag")]);
    sources.chosen = vec![("node_id", "chosen".into()), ("store", "embedded:chosen".into())];
    let settings = Settings::from_sources(&sources).expect("good settings");
    assert_eq!(settings.node_name(1), "flag");
    assert_eq!(settings.store, StoreTarget::Embedded { dir: "chosen".into() });
}

#[test]
fn every_rate_is_judged_beside_its_burst() {
    let limits = SECTIONS.iter().find(|section| section.name == "limits").expect("the limits");
    let rates: Vec<_> = limits.leaves.iter().filter_map(|leaf| leaf.key.strip_suffix("_per_s")).collect();
    assert!(rates.len() >= 11, "{rates:?}");
    for name in rates {
        let found = faults(&format!("[limits]\n{name}_per_s = 5000\n{name}_burst = 4"));
        assert!(found.iter().any(|fault| fault.starts_with(&format!("limits.{name}_burst: "))), "{found:?}");
    }
}

#[test]
fn the_file_can_be_named_in_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hearth.toml");
    std::fs::write(&file, "node_id = \"named\"\n").expect("write");
    let path = file.to_str().expect("UTF-8");
    let settings =
        Settings::from_sources(&sources(None, &[(FILE_VARIABLE, path)], &[])).expect("good settings");
    assert_eq!(settings.node_name(1), "named");
}

#[test]
fn all_faults_are_reported_at_once_by_name() {
    let found = faults(
        "colour = 1\n\
         client_addr = \"localhost\"\n\
         [session]\n\
         ttl_ms = \"long\"\n\
         login_policy = \"per_player\"\n\
         [link]\n\
         frame_bytes_max = 5\n\
         heartbeat_msec = 1\n\
         [tls]\n\
         cert_file = \"a.pem\"\n\
         [sessions]\n\
         ttl_ms = 1\n",
    );
    for (name, part) in [
        ("colour", "no such setting"),
        ("client_addr", "127.0.0.1:7700"),
        ("session.ttl_ms", "whole number, not text"),
        ("session.login_policy", "replace, reject, per_device, many(n), not"),
        ("link.frame_bytes_max", "between 1024 and 1048576, not 5"),
        ("link.heartbeat_msec", "did you mean link.heartbeat_ms?"),
        ("tls.cert_file", "set both or none"),
        ("sessions", "no such section"),
    ] {
        let told = found.iter().any(|fault| fault.starts_with(&format!("{name}: ")) && fault.contains(part));
        assert!(told, "{name} ({part}) is not among {found:#?}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn environment_and_flags_are_judged_by_name_too() {
    let environment = [("HEARTH_SESSION__TLL_MS", "1"), ("HEARTH_LINK__LINKS_MAX", "many"), ("PATH", "/bin")];
    let error = Settings::from_sources(&sources(None, &environment, &[("session.colour", "1")]))
        .expect_err("three faults")
        .to_string();
    assert!(error.contains("HEARTH_SESSION__TLL_MS: no setting"), "{error}");
    assert!(error.contains("did you mean HEARTH_SESSION__TTL_MS?"), "{error}");
    assert!(
        error.contains("link.links_max: must be a whole number, not \"many\" (from HEARTH_LINK__LINKS_MAX)"),
        "{error}"
    );
    assert!(error.contains("session.colour: there is no such setting"), "{error}");
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn a_text_in_quotes_is_the_text_also_where_no_quotes_are_needed() {
    let flags = [
        ("node_id", "\"n1\""),
        ("store", "\"embedded:/data\""),
        ("session.login_policy", "\"many(2)\""),
        ("auth.jwt_secret", "\"a secret may begin and end with a quote\""),
    ];
    let settings = Settings::from_sources(&sources(None, &[], &flags)).expect("good settings");
    assert_eq!(
        (settings.node_name(1).as_str(), settings.store.to_string().as_str()),
        ("n1", "embedded:/data")
    );
    assert_eq!(settings.auth.jwt_secret.as_ref().map(|secret| secret.expose().len()), Some(41));
    assert!(Settings::from_sources(&sources(None, &[], &[("node_id", "\"n1")])).is_err());
}

#[test]
fn a_missing_file_is_a_fault() {
    let error = Settings::from_sources(&sources(Some("/nowhere/hearth.toml".as_ref()), &[], &[]))
        .expect_err("no file");
    assert!(error.to_string().contains("cannot read the settings file /nowhere/hearth.toml"), "{error}");
}

#[test]
fn every_number_has_bounds_that_hold() {
    let mut checked = 0;
    for leaf in SECTIONS.iter().flat_map(|section| section.leaves) {
        let Some((min, max)) = leaf.bounds else {
            assert!(leaf.default.parse::<i64>().is_err(), "{} is a number without bounds", leaf.path());
            continue;
        };
        for outside in [min - 1, max + 1] {
            let set = [(leaf.path(), outside.to_string())];
            let set: Vec<(&str, &str)> =
                set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let error = Settings::from_sources(&sources(None, &[], &set)).expect_err("out of bounds");
            assert!(
                error.faults.iter().any(|fault| fault.setting == leaf.path()),
                "{}: {error}",
                leaf.path()
            );
        }
        checked += 1;
    }
    assert!(checked > 40, "only {checked} numbers");
}

#[test]
fn every_setting_says_what_it_means() {
    for leaf in SECTIONS.iter().flat_map(|section| section.leaves) {
        assert!(!leaf.doc.is_empty(), "{} has no text", leaf.path());
    }
}

#[test]
fn secrets_are_never_shown() {
    let toml = "service_key = \"hunter2\"\nstore = \"redis://:hunter2@10.0.0.1:6379/0\"\n\
                [cluster]\nname = \"x\"\n[auth]\njwt_secret = \"hunter2\"\n";
    let settings = Settings::from_toml(toml).expect("good settings");
    assert_eq!(settings.service_key.as_ref().map(Secret::expose), Some("hunter2"));
    let shown = format!("{settings:?} {} {:?}", settings.store, settings.warnings());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(settings.store.to_string(), "redis://10.0.0.1:6379/0");

    let bad =
        "service_key = [\"hunter2\"]\nstore = \"rredis://:hunter2@h\"\n[auth]\njwt_secret = [\"hunter2\"]\n";
    let found = faults(bad);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(!format!("{found:?}").contains("hunter2"), "{found:#?}");
}

#[test]
fn an_empty_variable_means_not_set() {
    let settings =
        Settings::from_sources(&sources(None, &[("HEARTH_SERVICE_KEY", "")], &[])).expect("good settings");
    assert!(settings.service_key.is_none());
}

#[test]
fn a_key_of_digits_stays_as_it_was_written() {
    let settings =
        Settings::from_sources(&sources(None, &[("HEARTH_SERVICE_KEY", "0123")], &[])).expect("good");
    assert_eq!(settings.service_key.as_ref().map(Secret::expose), Some("0123"));
}

#[test]
fn development_tokens_are_for_loopback_alone() {
    let elsewhere = "client_addr = \"0.0.0.0:7700\"\n[auth]\ndev_tokens = true\n";
    assert!(faults(elsewhere).concat().starts_with("auth.dev_tokens: must not be true"));
    let auto = Settings::from_toml("client_addr = \"0.0.0.0:7700\"").expect("good settings");
    assert!(!auto.dev_tokens_taken());
    assert!(auto.warnings().concat().contains("no JWT key"));
    let with_key =
        Settings::from_toml("[auth]\njwt_secret = \"0123456789abcdef0123456789abcdef\"").expect("good");
    assert!(!with_key.dev_tokens_taken());
    let both = "[auth]\njwt_secret = \"0123456789abcdef0123456789abcdef\"\ndev_tokens = true";
    assert!(Settings::from_toml(both).expect("good").dev_tokens_taken());
    let v6 = Settings::from_toml("client_addr = \"[::1]:7700\"").expect("good settings");
    assert!(v6.dev_tokens_taken());
}

#[test]
fn relations_between_settings_are_judged() {
    for (toml, start) in [
        ("store = \"redis://127.0.0.1:6379\"", "cluster.name: is required with Redis"),
        ("service_addr = \"127.0.0.1:7700\"", "service_addr: takes the port of client_addr"),
        ("service_addr = \"0.0.0.0:7700\"", "service_addr: takes the port of client_addr"),
        (
            "store = \"redis://h\"\npeer_addr = \"127.0.0.1:7700\"\n[cluster]\nname = \"x\"",
            "peer_addr: takes the port of client_addr",
        ),
        (
            "store = \"redis://h\"\npeer_addr = \"0.0.0.0:7701\"\n[cluster]\nname = \"x\"",
            "peer_addr: takes the port of service_addr",
        ),
        ("[auth]\njwt_algorithm = \"RS256\"", "auth.jwt_algorithm: has no key"),
        ("[auth]\njwt_key_file = \"k.pem\"", "auth.jwt_algorithm: must be RS256"),
        ("[auth]\njwt_secret = \"x\"\njwt_algorithm = \"ES256\"", "auth.jwt_algorithm: goes with"),
        ("[auth]\njwt_secret = \"x\"\njwt_key_file = \"k.pem\"", "auth.jwt_secret: auth.jwt_secret, auth."),
        ("[auth]\njwt_key_file = \"k\"\njwks_file = \"k\"", "auth.jwt_secret: auth.jwt_secret, auth."),
        ("[auth]\njwks_file = \"k\"\njwt_algorithm = \"ES256\"", "auth.jwt_algorithm: does not go with"),
        ("[service]\njwt_algorithm = \"ES256\"", "service.jwt_algorithm: has no key"),
        ("service_addr = \"0.0.0.0:1\"\n[service]\njwt_secret = \"x\"", "service.jwt_secret: must be at"),
        ("[auth]\njwt_secret = \"x\"\n[service]\njwt_secret = \"x\"", "service.jwt_secret: must not be auth"),
        (
            "[auth]\njwks_file = \"k\"\njwt_audience = \"a\"\n[service]\njwks_file = \"k\"\njwt_audience = \"a\"",
            "service.jwt_audience: with keys that sign for players",
        ),
        ("client_addr = \"0.0.0.0:1\"\n[auth]\njwt_secret = \"x\"", "auth.jwt_secret: must be at least 32"),
        ("[session]\nstate_bytes_max = 65536", "session.state_bytes_max: must not exceed"),
        ("[home]\nflush_interval_ms = 10000", "home.flush_interval_ms: must not exceed"),
        (
            "store = \"redis://h\"\n[cluster]\nname = \"x\"\n[redis]\nresponse_timeout_ms = 5000",
            "redis.response_timeout_ms: must",
        ),
        ("[limits]\nsend_per_s = 5000\nsend_burst = 4", "limits.send_burst: must be at least 5"),
        ("[auth]\norigins_allowed = [\"https://a.example/path\"]", "auth.origins_allowed: must hold origins"),
        ("[auth]\norigins_allowed = [5]", "auth.origins_allowed: must be text"),
        ("[auth]\norigins_allowed = \"*\"", "auth.origins_allowed: must be a list"),
        ("store = \"redis+sentinel://h/m\"", "cluster.name: is required with Redis"),
        ("store = \"redis+cluster://h\"", "cluster.name: is required with Redis"),
        ("[session]\nlogin_policy = \"many\"", "session.login_policy: must be one of"),
        ("[session]\nlogin_policy = \"many(0)\"", "session.login_policy: many takes a number from 1 to 32"),
        ("[session]\nlogin_policy = \"many(33)\"", "session.login_policy: many takes a number"),
        ("[session]\nlogin_policy = \"many(three)\"", "session.login_policy: many takes a number"),
        ("[session]\nlogin_policy = 3", "session.login_policy: must be text"),
        ("session = 5", "session: is a section"),
    ] {
        let found = faults(toml);
        assert_eq!(found.len(), 1, "{toml}: {found:#?}");
        assert!(found.concat().starts_with(start), "{toml}: {found:#?}");
    }
    // Port 0 is another port each time.
    assert!(faults("client_addr = \"127.0.0.1:0\"\nservice_addr = \"127.0.0.1:0\"").is_empty());
}

#[test]
fn a_faulty_setting_is_not_blamed_twice() {
    let found = faults("store = \"redis://h\"\n[cluster]\nname = \"a b\"\n");
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
fn a_list_in_the_environment_stands_between_commas() {
    let environment = [("HEARTH_AUTH__ORIGINS_ALLOWED", "https://A.example:443, http://b.example:8080")];
    let settings = Settings::from_sources(&sources(None, &environment, &[])).expect("good settings");
    let exact = |text: &str| AllowedOrigin::Exact(text.to_owned());
    assert_eq!(settings.auth.origins_allowed, [exact("https://a.example"), exact("http://b.example:8080")]);
}

#[test]
fn a_list_in_the_environment_may_stand_as_in_a_file() {
    let read = |text: &str| Settings::from_sources(&sources(None, &[("HEARTH_ROOMS__GRANTS", text)], &[]));
    let plain = read("lobby,g:*").expect("good settings");
    let as_in_a_file = read(r#" ["lobby", "g:*"]"#).expect("good settings");
    assert_eq!(format!("{:?}", as_in_a_file.rooms.grants), format!("{:?}", plain.rooms.grants));
    for broken in ["[1]", "[lobby]", r#"["lobby""#] {
        let faults = read(broken).expect_err("no list").faults;
        assert!(faults.iter().all(|fault| fault.setting == "rooms.grants"), "{broken}: {faults:?}");
    }
}

#[test]
fn login_policies_are_read_by_name() {
    for (text, policy) in [
        ("replace", LoginPolicy::Replace),
        ("reject", LoginPolicy::Reject),
        ("per_device", LoginPolicy::PerDevice),
        ("many(1)", LoginPolicy::Many(1)),
        ("many(32)", LoginPolicy::Many(32)),
    ] {
        let toml = format!("[session]\nlogin_policy = \"{text}\"");
        assert_eq!(Settings::from_toml(&toml).expect(text).session.login_policy, policy);
    }
}

#[test]
fn a_dead_node_is_forgotten_before_its_leases_end() {
    let settings = Settings::from_toml("[home]\nlease_ttl_ms = 3000\n[redis]\nresponse_timeout_ms = 500")
        .expect("good settings");
    assert_eq!(settings.member_ttl(), Duration::from_millis(2_500));
    let set = |ttl_ms: u32| format!("[cluster]\nmember_ttl_ms = {ttl_ms}");
    assert_eq!(
        Settings::from_toml(&set(6_000)).expect("good settings").member_ttl(),
        Duration::from_millis(6_000)
    );
    let found = faults(&set(6_001));
    assert!(found.len() == 1 && found[0].starts_with("cluster.member_ttl_ms: must not exceed"), "{found:?}");
}

#[test]
fn a_node_without_a_name_is_called_after_its_host_and_port() {
    let settings = Settings::default();
    let (one, other) = (settings.node_name(7700), settings.node_name(7710));
    assert!(one.ends_with("-7700") && one != other, "{one} {other}");
    let everywhere = "client_addr = \"0.0.0.0:7700\"\nstore = \"redis://h\"\n[cluster]\nname = \"x\"";
    let warned = Settings::from_toml(everywhere).expect("good settings").warnings().concat();
    assert!(warned.contains("public_url"), "{warned}");
}
