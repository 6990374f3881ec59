//! What `/metrics` says.

mod kit;

use kit::{Dir, Server, command, http, program, script, until, with_stdin};
use serde_json::json;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;

/// What the page has, by name and labels; every line is checked.
struct Page(HashMap<String, f64>);

impl Page {
    fn of(server: &Server) -> Page {
        let (status, answer) = http(server, "GET /metrics HTTP/1.1");
        assert_eq!(status, "200 OK");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"),
            "{head}"
        );
        let mut values = HashMap::new();
        let (mut described, mut kind) = (String::new(), String::new());
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(!text.is_empty() && name != described);
                described = name.to_owned();
            } else if let Some(types) = line.strip_prefix("# TYPE ") {
                let (name, of) = types.split_once(' ').unwrap();
                assert_eq!(name, described);
                assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
                assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
                kind = of.to_owned();
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let bare = name.split('{').next().unwrap();
                let suffixes: &[&str] = if kind == "histogram" {
                    &["_bucket", "_sum", "_count"]
                } else {
                    &[""]
                };
                assert!(
                    suffixes.iter().any(|suffix| bare == format!("{described}{suffix}")),
                    "{line}"
                );
                assert!(
                    values.insert(name.to_owned(), value.parse().unwrap()).is_none(),
                    "{line}"
                );
            }
        }
        assert!(body.ends_with('\n'));
        Page(values)
    }

    fn get(&self, name: &str) -> f64 {
        let name = format!("exec_server_{name}");
        *self.0.get(&name).unwrap_or_else(|| panic!("{name} is missing"))
    }
}

#[test]
fn what_happens_is_counted() {
    let server = Server::websocket(&["--metrics", "--max-sessions", "1", "--retain-bytes", "1000"]);
    let before = Page::of(&server);
    assert_eq!((before.get("sessions"), before.get("connections_total")), (0.0, 0.0));
    assert_eq!(
        before.get(&format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))),
        1.0
    );

    let mut client = server.client();
    assert_eq!(
        server.connect().refusal("initialize", json!({"clientName": "two"})).0,
        -32603
    );
    assert_eq!(client.run(script("a", "head -c 5000 /dev/zero")).stdout.len(), 5000);
    client.start(with_stdin(program("cat", &["/bin/cat"])));
    client.write("cat", "1", "hello");
    client.output_until("cat", "hello");
    assert_eq!(
        client.refusal("process/start", program("b", &["/no/such/program"])).0,
        -32603
    );
    let page = until("an ended process", || {
        let page = Page::of(&server);
        (page.get("processes") == 1.0 && page.get("connections") == 1.0).then_some(page)
    });
    for (name, number) in [
        ("sessions", 1.0),
        ("sessions_total", 1.0),
        ("session_resumptions_total", 0.0),
        ("connections_total", 2.0),
        ("processes_started_total", 2.0),
        ("processes_ended_total", 1.0),
        ("process_start_failures_total", 1.0),
        ("output_bytes_total", 5005.0),
        ("stdin_bytes_total", 5.0),
        ("output_evicted_detached_bytes_total", 0.0),
        ("limits_met_total{limit=\"max-sessions\"}", 1.0),
        ("limits_met_total{limit=\"max-running\"}", 0.0),
        // Two handshakes, three starts, a write.
        ("requests_total", 6.0),
        ("request_duration_seconds_count", 6.0),
        ("request_duration_seconds_bucket{le=\"+Inf\"}", 6.0),
        ("process_start_duration_seconds_count", 2.0),
    ] {
        assert_eq!(page.get(name), number, "{name}");
    }
    assert!(page.get("sent_bytes_total") > 5005.0 && page.get("received_bytes_total") > 400.0);
    assert!(page.get("retained_bytes") > 0.0 && page.get("process_start_duration_seconds_sum") > 0.0);

    // Nobody is there for what is said then.
    let gate = Dir::new();
    nix::unistd::mkfifo(&gate.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let gated = format!("cat {}; head -c 5000 /dev/zero", gate.path("gate").display());
    client.start(script("c", &gated));
    drop(client);
    until("the end of the connection", || {
        (Page::of(&server).get("connections") == 0.0).then_some(())
    });
    std::fs::write(gate.path("gate"), "").unwrap();
    until("output that is given up", || {
        (Page::of(&server).get("output_evicted_detached_bytes_total") >= 4000.0).then_some(())
    });
}

#[test]
fn it_is_only_there_for_those_who_may_see_it() {
    let server = Server::websocket(&[]);
    assert_eq!(http(&server, "GET /metrics HTTP/1.1").0, "404 Not Found");

    let dir = Dir::new();
    let token = dir.path("token");
    std::fs::write(&token, "a-token-of-some-length-0123456789").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let token = token.display().to_string();
    let server = Server::websocket(&["--metrics", "--ws-auth", "capability-token", "--ws-token-file", &token]);
    assert_eq!(http(&server, "GET /metrics HTTP/1.1").0, "401 Unauthorized");
    assert_eq!(
        http(&server, "GET /metrics HTTP/1.1\nOrigin: http://x").0,
        "403 Forbidden"
    );
    assert_eq!(http(&server, "POST /metrics HTTP/1.1").0, "405 Method Not Allowed");
    let authorization = "Authorization: Bearer a-token-of-some-length-0123456789";
    assert_eq!(
        http(&server, &format!("GET /metrics HTTP/1.1\n{authorization}")).0,
        "200 OK"
    );
    let (status, head) = http(&server, &format!("HEAD /metrics HTTP/1.1\n{authorization}"));
    assert!(status == "200 OK" && head.ends_with("\r\n\r\n"), "{head}");

    let refused = command(&["--metrics", "--listen", "stdio"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
