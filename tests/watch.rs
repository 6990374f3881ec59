//! `fs/watchMissing`, and what a client asks before it works.

mod kit;

use kit::{Dir, both};
use serde_json::{Value, json};
use std::fs;

fn changed(id: u64) -> impl Fn(&Value) -> bool {
    move |message| *message == json!({"method": "fs/missingChanged", "params": {"watchId": id}})
}

#[test]
fn a_client_is_told_when_a_missing_path_or_a_parent_of_it_is_made() {
    both(|_, client| {
        let dir = Dir::new();
        let watch = |id: u64, name: &str| json!({"watchId": id, "missing": [dir.uri(name)]});
        assert_eq!(client.call("fs/watchMissing", watch(1, "a")), json!({"watching": true}));
        fs::write(dir.path("a"), "").unwrap();
        client.wait_for("fs/missingChanged", changed(1));
        assert_eq!(
            client.call("fs/watchMissing", watch(5, "b/c/d")),
            json!({"watching": true})
        );
        fs::create_dir(dir.path("b")).unwrap();
        client.wait_for("fs/missingChanged", changed(5));
    });
}

#[test]
fn a_watch_that_makes_no_sense_is_none() {
    both(|_, client| {
        let dir = Dir::new();
        fs::write(dir.path("there"), "").unwrap();
        let mut watching = |params: Value| client.call("fs/watchMissing", params)["watching"] == true;
        let (missing, there) = (dir.uri("missing"), dir.uri("there"));
        assert!(!watching(json!({"watchId": 0, "missing": [missing]})));
        assert!(!watching(json!({"watchId": 1, "missing": []})));
        assert!(!watching(json!({"watchId": 2, "missing": [there]})));
        assert!(!watching(
            json!({"watchId": 3, "missing": [missing], "present": missing})
        ));
        assert!(!watching(json!({"watchId": 4, "missing": ["file://elsewhere/x"]})));
        assert!(!watching(json!({"watchId": 5, "missing": vec![&missing; 65]})));
        assert!(watching(json!({"watchId": 6, "missing": [missing], "present": there})));
        assert!(!watching(json!({"watchId": 6, "missing": [missing]})));
        // The refused one has changed nothing.
        fs::rename(dir.path("there"), dir.path("elsewhere")).unwrap();
        client.wait_for("fs/missingChanged", changed(6));
        assert_eq!(client.refusal("fs/watchMissing", json!({"watchId": 7})).0, -32602);
        assert_eq!(client.refusal("fs/watchMissing", json!({"missing": []})).0, -32602);
    });
}

#[test]
fn there_is_no_configuration_of_codex() {
    both(|_, client| {
        let read = |paths: Value| json!({"cwd": "file:///nowhere", "configPaths": paths, "requirementsPaths": []});
        let none = json!({"layers": [], "cloudInsertionIndex": 0});
        let answer = client.call("environmentConfig/read", read(json!([["mcp_servers"]])));
        assert_eq!((&answer["config"], &answer["requirements"]), (&none, &none));
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(answer["hostname"], hostname.trim());
        assert!(answer["codexHomeDir"].as_str().unwrap().starts_with("file:///"));
        for (paths, error) in [
            (json!([]), "at least one config or requirements path is required"),
            (json!([[]]), "TOML paths must contain at least one key segment"),
        ] {
            let refusal = client.refusal("environmentConfig/read", read(paths));
            assert_eq!(refusal, (-32602, error.to_owned()));
        }
        let capabilities = &client.call("environment/info", json!({}))["capabilities"];
        assert_eq!(
            (&capabilities["fsWatchMissing"], &capabilities["shellSnapshotV2"]),
            (&json!(true), &json!(false))
        );
    });
}
